"""The stage that restores pictures."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffusion_jax.data import DataError
from diffusion_jax.data.images import suffixes, to_uint8
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.restoration import (
    Seen,
    make_method,
    make_restoration,
    observe,
    within,
)
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.metrics.fidelity import psnr
from diffusion_jax.restoration.linear import unmasked
from diffusion_jax.restoration.posterior_mean import Conditioned
from diffusion_jax.restoration.projections import with_known
from diffusion_jax.run.blind import described, estimated, values_of, with_estimate
from diffusion_jax.run.detector import open_detector
from diffusion_jax.run.trained import Run, Trained
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.files import path_of, remove_tree
from diffusion_jax.system.pictures import save_png, tile
from diffusion_jax.system.texts import shown
from diffusion_jax.types import Array, Params

PROBES = 5
"""Times at which the residual of linear systems is computed."""
SHOWN = 6
"""Samples on a sheet."""
CELL = 256
"""Largest side of a picture on a sheet, in pixels."""
FULL = 0.5
"""Standard deviation that is white in `spread.png`, a quarter of the range [-1, 1]."""


class Restored(NamedTuple):
    """Samples of what a picture could have been; all in [-1, 1]."""

    samples: np.ndarray  # `[K, H, W, C]`
    weights: np.ndarray  # `[K]`, equal but for particles
    mean: np.ndarray  # `[H, W, C]`, with the least expected squared error
    spread: np.ndarray  # `[H, W, C]`, standard deviation


def restore(run: Run) -> None:
    """Restores the picture `restore.image`, or each of a folder: into `samples/restored/NAME`.

    Writes `restore.num_samples` samples, their mean, their spread, and a sheet of all of them.
    """
    settings = run.config.restore
    pictures = _pictures(settings.image)
    model = run.trained()
    channels = model.draws.codec.shape[-1]
    masked = open_detector(run.config, channels)
    folder = run.workdir / "samples" / "restored"
    done = 0
    for path in pictures:
        try:
            seen = masked(observe(run.config, channels, path))
        except DataError as error:
            if len(pictures) == 1:
                raise
            print(f"warning: skipped: {error}", file=sys.stderr)
            continue
        about: dict[str, Any] = {}
        if settings.blind.rounds:
            estimate = estimated(model, seen)
            seen, about = with_estimate(seen, estimate), values_of(estimate)
            if is_main():
                print(f"{shown(path)}: {described(estimate)}")
        found = restored(model, seen)
        done += 1
        if is_main():
            _save(model, folder / path.name, path, seen, found, about)
    if not done:
        raise DataError(f"restore.image={settings.image!r}: none of its pictures can be read")


def restored(model: Trained, seen: Seen) -> Restored:
    """Samples from the posterior of one picture.

    Raises:
        SamplingError: some are not finite.
    """
    config, own = model.run.config, model.draws.codec.shape
    num = config.restore.num_samples
    index = config.sample.first_index + np.arange(num)
    # A picture smaller than the network's is a part of one that is not.
    whole = *map(max, seen.shape[:-1], own[:-1]), own[-1]
    each = jax.tree.map(lambda array: np.repeat(np.asarray(array), num, 0), seen.observation)
    request = model.request(index, model.run.conditions.explicit(index))
    given = {**request.given, "observation": within(each, seen.shape, whole)}
    # As many pixels at once as in other samples.
    size = config.sample.batch_size * np.prod(own) // np.prod(whole)
    generator = make_restoration(config, model.draws, whole)
    job = model.params, config.sample.seed, request._replace(given=given)
    weights = np.full(num, 1 / num)
    if make_method(config).particles > 1:
        x, _, particles = generator.with_state(*job, batch_size=num)
        weights = np.exp(particles.log_weights)
    else:
        every = max(len(generator.times) // PROBES, 1)
        x, states = generator(*job, batch_size=max(int(size), 1), keep_every=every)
        if states is not None:
            _report_residual(generator, model.params, job[-1], states[:-1], every)
    model.encoded(x, index)  # raises if they are not finite
    height, width, _ = seen.shape
    x = np.asarray(with_known(np.clip(x[:, :height, :width], -1, 1), each))
    mean = np.tensordot(weights, x, 1)
    return Restored(x, weights, mean, np.sqrt(np.tensordot(weights, (x - mean) ** 2, 1)))


def _report_residual(
    generator: Generator, params: Params, request: Request, states: np.ndarray, every: int
) -> None:
    """Prints how well the linear systems of a method were solved, if it has any.

    For the first sample at `states` `[P, K, H, W, C]`, those of every `every`-th time.
    """

    @jax.jit
    def residual(params: Params, request: Request, x_t: Array, t: Array) -> Array | None:
        denoise = generator.guidance.guide(generator.denoiser(params), request, generator.times)
        if not isinstance(denoise, Conditioned):
            return None
        return denoise.residual(x_t, t[None], request.cond)[0]

    first = request._replace(
        **jax.tree.map(
            lambda array: np.asarray(array)[:1],
            {"index": request.index, "cond": request.cond, "given": request.given},
        )
    )
    times = generator.times[::every][: len(states)]
    found = [residual(params, first, x[:1], t) for x, t in zip(states, times, strict=True)]
    if is_main() and found and found[0] is not None and max(found) > 0:  # 0 is exact
        print(f"linear systems were solved to a relative residual of at most {max(found):.1e}")


def _pictures(image: str) -> list[Path]:
    """The pictures to restore."""
    path = path_of(image)
    if not path.is_dir():
        return [path]
    ends = tuple(suffixes())
    found = sorted(file for file in path.iterdir() if file.name.lower().endswith(ends))
    if not found:
        raise ConfigError(f"restore.image={shown(path)}: there is no picture in this folder")
    return found


def _save(
    model: Trained, folder: Path, path: Path, seen: Seen, found: Restored, blind: dict[str, Any]
) -> None:
    """Writes the pictures and the sheet, and prints what was found.

    What was found of the damage, `blind`, is written into the pictures.
    """
    settings = model.run.config.restore
    made_by = {**model.made_by(model.run.config.sample.seed), "restore": settings.to_dict()}
    made_by |= {"blind": blind} if blind else {}
    remove_tree(folder, missing_ok=True)
    folder.mkdir(parents=True)
    for number, sample in enumerate(to_uint8(found.samples)):
        about = {**made_by, "index": number, "weight": float(found.weights[number])}
        save_png(folder / f"{number:06d}.png", sample, about)
    spread = np.clip(2 * found.spread.mean(-1, keepdims=True) / FULL - 1, -1, 1)
    picture = np.asarray(seen.observation.y[0])
    pictures = {"mean": found.mean, "spread": spread, "given": picture}
    if (known := unmasked(seen.observation.operator)[1]).ndim:
        pictures["mask"] = 1 - 2 * np.asarray(known[0])
    for name, each in pictures.items():
        save_png(folder / f"{name}.png", to_uint8(each), {**made_by, "white": FULL})
    cells = [picture, *found.samples[:SHOWN], found.mean, spread]
    cells += [] if seen.truth is None else [seen.truth]
    sheet = tile(np.stack([_cell(cell, seen.shape) for cell in cells]), len(cells))
    save_png(folder / "sheet.png", sheet, made_by)
    print(
        f"{shown(path)}: {len(found.samples)} samples of step {model.step}, their mean and spread "
        f"({found.spread.mean():.3f} on average, at most {found.spread.max():.3f}, of a range of "
        f"2): {folder}"
    )
    if (effective := 1 / np.sum(found.weights**2)) < 0.99 * len(found.samples):
        print(f"the samples are weighted, and worth {effective:.1f} of one weight")
    if seen.truth is not None:
        print(_compared(seen, found))


def _cell(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A picture on a sheet: uint8, with the channels of `shape`, its longer side `CELL` at most."""
    image = to_uint8(picture)
    if image.shape[-1] < shape[-1]:
        image = image.repeat(shape[-1], -1)
    height, width = (side * min(CELL, max(shape[:2])) // max(shape[:2]) for side in shape[:2])
    if image.shape[:2] == (height, width):
        return image
    grey = shape[-1] == 1
    resized = Image.fromarray(image[..., 0] if grey else image).resize((width, height))
    return np.asarray(resized).reshape(height, width, shape[-1])


def _compared(seen: Seen, found: Restored) -> str:
    """How far the samples are from the truth, in words."""
    truth, observation = seen.truth, seen.observation
    assert truth is not None
    noise = np.asarray(observation.y - observation.operator(jnp.asarray(truth)[None])).std()
    whole, *each = psnr(np.stack([found.mean, *found.samples]), truth[None], data_range=2)
    least, most = found.samples.min(0), found.samples.max(0)
    open_ = most > least
    inside = ((least <= truth) & (truth <= most))[open_].mean() if open_.any() else 1.0
    num = len(found.samples)
    return (
        f"against the truth: mean {whole:.2f} dB, a sample {np.mean(each):.2f} dB; noise of "
        f"the observation {noise:.4f}; {inside:.2f} of what was restored lies between the least "
        f"and the largest sample ({(num - 1) / (num + 1):.2f} if they were exact)"
    )
