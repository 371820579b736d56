"""Classical restoration, azula's on the network of ours, and augraphy's decay, for photographs."""

import functools
import random
from collections.abc import Callable
from typing import Any

import augraphy
import bm3d
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import torch
from azula.guidance.mmps import MMPSDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.sample import DDIMSampler
from skimage import restoration

from diffusion_jax.data import to_uint8
from diffusion_jax.data.sets.photographs import Patches
from diffusion_jax.restoration.linear import Downscale, GaussianBlur, gaussian_kernel
from diffusion_jax.restoration.operators import Identity, Mask
from experiments.restoration import photographs
from experiments.restoration.calibration import Model
from experiments.restoration.photographs import (
    DEBLURRING,
    DENOISING,
    MASKED,
    MIXED,
    UPSCALING,
    Case,
    Method,
)
from experiments.restoration.theirs import Counted, Exact

if not hasattr(np, "trapz"):  # bm4d 4.2 calls it by the name it had before NumPy 2.4
    np.trapz = np.trapezoid  # type: ignore[attr-defined]
PADDING = 16
"""Pixels by which pictures are continued, mirrored, for methods that know of no edges."""
AROUND = 192
"""Side of the part of a photograph that augraphy decays, of which a window is the middle."""
LEAST_NOISE = 0.01
"""For azula, which divides by the noise of what is known exactly."""


def _each(run: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A function `(y, known, sigma, **setting) -> picture`, of one window, for all of a case.

    Pictures are [H, W, 3] in [0, 1], and so is the scale of `sigma`.
    """

    def every(case: Case, **setting: Any) -> np.ndarray:
        found = []
        for i in range(len(case.x)):
            one = case.part([i])
            y, sigma = (np.asarray(one.given.y[0]) + 1) / 2, float(one.given.sigma[0]) / 2
            found.append(run(one, y.astype(np.float64), sigma, **setting))
        return np.clip(2 * np.stack(found)[:, None] - 1, -1, 1).astype(np.float32)

    return every


def inpainted(one: Case, y: np.ndarray, sigma: float, how: str, radius: float = 3) -> np.ndarray:
    """By OpenCV or scikit-image."""
    mask: Any = one.given.operator
    return _inpainted(y, np.asarray(mask.known[0, ..., 0]) == 0, how, radius)


def _inpainted(y: np.ndarray, lost: np.ndarray, how: str, radius: float = 3) -> np.ndarray:
    if how == "biharmonic":
        return restoration.inpaint_biharmonic(y, lost, channel_axis=-1)
    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[how]
    found = cv2.inpaint(to_uint8(2 * y - 1), lost.astype(np.uint8), radius, flag) / 255
    return np.where(lost[..., None], found, y)


def denoised(one: Case, y: np.ndarray, sigma: float, how: str, weight: float = 1.0) -> np.ndarray:
    """By BM3D, total variation, non-local means or wavelets, which are told the noise."""
    if how == "bm3d":
        return bm3d.bm3d_rgb(y, sigma)
    if how == "tv":
        return restoration.denoise_tv_chambolle(y, weight * sigma, channel_axis=-1)
    if how == "nlm":
        return restoration.denoise_nl_means(
            y, patch_size=5, patch_distance=6, h=weight * sigma, sigma=sigma, fast_mode=True,
            channel_axis=-1,
        )  # fmt: skip
    return restoration.denoise_wavelet(
        y, sigma=sigma, convert2ycbcr=True, rescale_sigma=True, channel_axis=-1
    )


def deblurred(one: Case, y: np.ndarray, sigma: float, how: str, steps: int = 20) -> np.ndarray:
    """By BM3D, Richardson and Lucy, or Wiener's filter, which are told the blur."""
    blur: Any = one.given.operator
    return _deblurred(y, sigma, blur, how, steps)


def _deblurred(
    y: np.ndarray, sigma: float, blur: GaussianBlur, how: str, steps: int = 20
) -> np.ndarray:
    kernel = np.asarray(gaussian_kernel(jnp.asarray(blur.width[:1]), 15, 2)[0], np.float64)
    y = np.pad(y, [(PADDING, PADDING)] * 2 + [(0, 0)], "symmetric")
    found = []
    for channel in np.moveaxis(y, -1, 0):
        if how == "bm3d":
            found.append(bm3d.bm3d_deblurring(np.atleast_3d(channel), sigma, kernel).squeeze())
        elif how == "lucy":
            found.append(restoration.richardson_lucy(np.clip(channel, 0, 1), kernel, steps))
        else:
            found.append(restoration.unsupervised_wiener(channel, kernel, rng=0)[0])
    return np.stack(found, -1)[PADDING:-PADDING, PADDING:-PADDING]


def enlarged(one: Case, y: np.ndarray, sigma: float, how: int) -> np.ndarray:
    """By interpolation."""
    return cv2.resize(y, one.x.shape[2:0:-1], interpolation=how)


def repaired(one: Case, y: np.ndarray, sigma: float, how: str) -> np.ndarray:
    """Tones are set right, what is lost filled in, and the rest denoised and deblurred by BM3D."""
    worn: Any = one.given.operator
    mask, fading = worn.outer, worn.inner.inner
    gain, offset = (np.asarray(a[0], np.float64) for a in (fading.gain, fading.offset))
    lost = np.asarray(mask.known[0, ..., 0]) == 0
    y = ((2 * y - 1 - offset) / gain + 1) / 2
    y = _inpainted(np.clip(np.where(lost[..., None], 0, y), 0, 1), lost, how)
    return _deblurred(y, float(sigma / gain.mean()), worn.inner.outer, "bm3d")


class Network(torch.autograd.Function):
    """The network of a model, `(x_t [B, D], t) -> x_0 [B, D]`, differentiated by JAX."""

    @staticmethod
    def forward(x: Any, pull_of: Callable, t: float) -> Any:
        found, Network.pull = pull_of(jnp.asarray(x.detach().numpy()), t)
        return torch.from_numpy(np.array(found))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.pull = Network.pull

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, None, None]:
        found = _pulled(ctx.pull, jnp.asarray(grad.numpy()))
        return torch.from_numpy(np.array(found)), None, None


@jax.jit
def _pulled(pull: Callable, grad: Any) -> Any:
    return pull(grad)[0]


def denoiser(model: Model) -> Callable[[Any, Any, Any], Any]:
    """That of a model, as azula's in `theirs`: `(x [B, D], alpha, sigma) -> x_0`, unclipped."""
    plain = model.denoiser(model.params)

    @jax.jit
    def pull_of(x: Any, t: Any) -> Any:
        def flat(x: Any) -> Any:
            times = jnp.full(len(x), t, jnp.float32)
            return plain(x.reshape(-1, *model.shape), times, {}).x_0.reshape(x.shape)

        return jax.vjp(flat, x)

    # Cosine with any truncation: both sides have `alpha^2 + sigma^2 = 1`, azula to 1e-6.
    last = float(jnp.arctan2(*model.schedule.scales(jnp.ones(()))[::-1]))

    def denoise(x: Any, alpha: Any, sigma: Any) -> Any:
        return Network.apply(x, pull_of, min(float(torch.atan2(sigma, alpha)) / last, 1.0))

    return denoise


def forward(case: Case) -> Callable[[Any], Any]:
    """The linear part of a case's operator in torch, `[B, D] -> [B, d]`, which is separable."""
    operator: Any = case.given.operator
    height, width = case.x.shape[1:3]
    known: Any = np.ones((1, 1, 1, 1), np.float32)
    gain: Any = known
    if case.task == MIXED:
        known, gain = operator.outer.known, operator.inner.inner.gain
        operator = operator.inner.outer
    line = np.eye(height, dtype=np.float32)[None, :, :, None]  # as signals, a column each
    if isinstance(operator, Mask):
        known = operator.known
    sides = np.eye(height, dtype=np.float32)
    if isinstance(operator, Downscale):
        sides = np.asarray(operator(line[0])[..., 0]).T
    elif isinstance(operator, GaussianBlur):
        one = GaussianBlur(jnp.asarray(operator.width[:1]))
        sides = np.asarray(one(jnp.asarray(line.reshape(1, height, height))))[0]
    elif not isinstance(operator, Identity | Mask):
        raise TypeError(f"{type(operator).__name__} is not written in torch")
    known, gain, sides = (torch.from_numpy(np.array(a, np.float32)) for a in (known, gain, sides))

    def apply(x: Any) -> Any:
        x = gain * x.reshape(len(x), height, width, 3)
        return (known * torch.einsum("ih,jw,bhwc->bijc", sides, sides, x)).flatten(1)

    return apply


class Azula:
    """Moment matching posterior sampling, its best for 64 entries in README.md."""

    def __init__(self, model: Model, particles: int, evaluations: int) -> None:
        self._model, self._particles, self._evaluations = model, particles, evaluations
        self._denoise = denoiser(model)

    def samples(self, case: Case, iterations: int) -> np.ndarray:
        """`[N, K, H, W, 3]`, by as many steps as the evaluations allow."""
        size = photographs.TOGETHER // self._particles
        found = [
            self._batch(case.part(slice(start, start + size)), iterations)
            for start in range(0, len(case.x), size)
        ]
        return np.clip(np.concatenate(found), -1, 1)

    def _batch(self, case: Case, iterations: int) -> np.ndarray:
        torch.manual_seed(int(case.photograph[0]))
        x_like = np.zeros((1, *case.x.shape[1:]), np.float32)
        rows = np.repeat(np.arange(len(case.x)), self._particles)
        every = case.part(rows)
        # What an affine operator adds.
        offset = np.asarray(every.given.operator(jnp.zeros_like(jnp.asarray(every.x))))
        y = torch.from_numpy(np.array(every.given.y - offset)).flatten(1)
        noise = max(float(case.given.sigma[0]), LEAST_NOISE) ** 2
        counted = Counted(self._denoise)
        moved = MMPSDenoiser(
            Exact(counted), y, forward(every), IsotropicCovariance(torch.tensor(noise)),
            iterations=iterations,
        )  # fmt: skip
        steps = self._evaluations // (iterations + 2)
        sampler = DDIMSampler(moved, eta=1.0, steps=steps, silent=True)
        found = sampler(sampler.init((len(rows), x_like.size))).reshape(-1, *x_like.shape[1:])
        if counted.calls > self._evaluations:
            raise RuntimeError(f"{counted.calls} evaluations instead of {self._evaluations}")
        x = found.numpy().reshape(len(case.x), self._particles, *x_like.shape[1:])
        if isinstance(case.given.operator, Mask) and not case.given.sigma.any():
            x = np.where(
                np.asarray(case.given.operator.known)[:, None] == 1, case.given.y[:, None], x
            )
        return x


def methods(model: Model, particles: int, evaluations: int, few: int) -> dict[str, Method]:
    """By name."""
    by = lambda run, **how: _each(functools.partial(run, **how))  # noqa: E731
    found: dict[str, Method] = {}
    for label, how in (("Telea", "telea"), ("Navier-Stokes", "ns")):
        radii = [{"radius": r} for r in (3, 1, 5)]
        found[f"OpenCV {label}"] = Method(by(inpainted, how=how), radii, MASKED)
    found["scikit-image biharmonic"] = Method(by(inpainted, how="biharmonic"), [{}], MASKED)
    found["BM3D"] = Method(by(denoised, how="bm3d"), [{}], (DENOISING,))
    for label, how, tried in (
        ("total variation", "tv", (1.0, 1.5, 2.0)),
        ("non-local means", "nlm", (1.0, 0.7, 0.5, 0.3)),
    ):
        weights = [{"weight": w} for w in tried]
        found[f"scikit-image {label}"] = Method(by(denoised, how=how), weights, (DENOISING,))
    found["scikit-image wavelets"] = Method(by(denoised, how="wavelet"), [{}], (DENOISING,))
    found["BM3D deblurring"] = Method(by(deblurred, how="bm3d"), [{}], (DEBLURRING,))
    steps = [{"steps": n} for n in (20, 10, 5)]
    found["Richardson-Lucy"] = Method(by(deblurred, how="lucy"), steps, (DEBLURRING,))
    found["unsupervised Wiener"] = Method(by(deblurred, how="wiener"), [{}], (DEBLURRING,))
    for label, how in (("bicubic", cv2.INTER_CUBIC), ("Lanczos", cv2.INTER_LANCZOS4)):
        found[f"OpenCV {label}"] = Method(by(enlarged, how=how), [{}], (UPSCALING,))
    for label, how in (("Telea", "telea"), ("biharmonic", "biharmonic")):
        found[f"tones, {label}, BM3D"] = Method(by(repaired, how=how), [{}], (MIXED,))
    azula = Azula(model, particles, evaluations)
    every = (*MASKED, DEBLURRING, UPSCALING, DENOISING, MIXED)
    found["azula MMPS"] = Method(azula.samples, [{"iterations": 1}], every, few)
    return found


def worn(part: np.ndarray, seed: int) -> np.ndarray:
    """Stains, lines and worn edges of augraphy, at random; uint8 `[H, W, 3]`."""
    random.seed(seed)
    np.random.seed(seed)
    made = np.ascontiguousarray(part)
    for kind in (
        augraphy.Stains(stains_blend_alpha=0.7),
        augraphy.NoisyLines(noisy_lines_number_range=(2, 5), noisy_lines_thickness_range=(1, 3)),
        augraphy.LinesDegradation(line_replacement_thickness=(1, 2)),
    ):
        made = kind(made)
    return made[..., :3]


def decayed(source: Patches, rows: np.ndarray, seed: int = 0) -> Case:
    """Windows that augraphy decayed, masked where they differ: 2 to 40% of each."""
    x, images = source.gather(rows)[0], list[np.ndarray]()
    for number, *corner in source.cells[rows]:
        pixels = source.photographs[number]
        start = np.array(corner) + source.size // 2
        top, left = np.clip(
            start - (AROUND - source.size) // 2, 0, np.array(pixels.shape[:2]) - AROUND
        )
        part = pixels[top : top + AROUND, left : left + AROUND]
        y, z = start - (top, left)
        for attempt in range(photographs.TRIES):
            made = worn(part, seed + photographs.TRIES * len(images) + attempt)
            image, true = (a[y : y + source.size, z : z + source.size] for a in (made, part))
            if 0.02 <= photographs.differs(image, true).mean() <= 0.4:
                break
        images.append(image)
    return photographs.decayed_by(photographs.OTHERS, x, np.stack(images), source.cells[rows, 0])
