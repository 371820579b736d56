"""Distributions sampled by each kind of guidance, compared with exact target distributions.

    PYTHONPATH=. python experiments/guidance/laws.py

The data are a mixture of two overlapping classes along one direction of 16, and noise along all
others. The denoisers are exact, so that all error is due to guidance. See README.md.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.guidance import scales
from diffusion_jax.guidance.extrapolation import Push, autoguidance, classifier_free
from diffusion_jax.guidance.gradients import by_gradient
from diffusion_jax.guidance.particles import flock
from diffusion_jax.metrics.intervals import Z
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Cond, Denoised, Denoiser, Key, Sampler
from tests.oracles import GaussianMixture

DIM, SIDE, BLUR = 16, 0.2, 0.25
"""Dimensions, spread of the data across its direction, and extra spread of the worse model."""
ALONG = np.random.default_rng(0).normal(size=DIM)
ALONG /= np.linalg.norm(ALONG)
PLACES, SPREADS = np.array([-0.9, 0.2, 0.5, 1.4]), np.array([0.15, 0.3, 0.15, 0.3])
CLASS = np.array([0, 0, 1, 1])
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
SCHEDULE = Cosine()
Z_GRID = np.linspace(-4, 4, 8001)


def mixture(of: int | None = None, blur: float = 0.0) -> GaussianMixture:
    """The data distribution, or that of one class; for a worse model, with more noise."""
    kept = [k for k in range(4) if of in (None, CLASS[k])]
    across = np.eye(DIM) - np.outer(ALONG, ALONG)
    covs = [
        (SPREADS[k] ** 2 + blur**2) * np.outer(ALONG, ALONG) + (SIDE**2 + blur**2) * across
        for k in kept
    ]
    weights = np.full(len(kept), 1 / len(kept))
    return GaussianMixture(weights, PLACES[kept][:, None] * ALONG, np.array(covs))


def density(of: int | None = None, blur: float = 0.0) -> np.ndarray:
    """Its density along the direction, on `Z_GRID`."""
    var = SPREADS**2 + blur**2
    each = np.exp(-((Z_GRID[:, None] - PLACES) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)
    return each[:, [of in (None, c) for c in CLASS]].mean(1)


def tilted(scale: float, away: np.ndarray) -> np.ndarray:
    """Distribution function on `Z_GRID` of p(x | c) (p(x | c) / away)^(scale - 1)."""
    own = density(0)
    log = np.log(own + 1e-300) * scale - np.log(away + 1e-300) * (scale - 1)
    law = np.where(own > 1e-200, np.exp(log - np.max(log)), 0.0)
    cdf = np.cumsum(law)
    return cdf / cdf[-1]


def wasserstein(z: np.ndarray, cdf: np.ndarray) -> float:
    """Wasserstein distance of points `z` `[N]` from a distribution: integral of |F_N - F|."""
    found = np.searchsorted(np.sort(z), Z_GRID, side="right") / len(z)
    return float(np.trapezoid(np.abs(found - cdf), Z_GRID))


def denoiser() -> Denoiser:
    """The exact denoiser, given the class (label 0) or not (-1)."""
    given, free = mixture(0).denoiser(SCHEDULE), mixture().denoiser(SCHEDULE)

    def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
        on = (cond["label"] >= 0)[:, None]
        return Denoised(jnp.where(on, given(x_t, t, {}).x_0, free(x_t, t, {}).x_0))

    return denoise


def log_probability(x: Array, alpha: Array, sigma: Array) -> Array:
    """`log p(c = 0 | x)` `[B]` at a noise level."""
    given = mixture(0).log_density(x, alpha, sigma) - jnp.log(2.0)
    return given - mixture().log_density(x, alpha, sigma)


def noisy_classifier(x_t: Array, t: Array, cond: Cond, x_0: Array) -> Array:
    """The exact classifier of noisy data."""
    return log_probability(x_t, SCHEDULE.alpha(t), SCHEDULE.sigma(t))


def clean_classifier(x_t: Array, t: Array, cond: Cond, x_0: Array) -> Array:
    """The exact classifier of clean data, applied to the mean."""
    return log_probability(x_0, jnp.ones_like(t), jnp.zeros_like(t))


def guidances() -> dict[str, tuple[Callable[[float], Denoiser], np.ndarray]]:
    """By name: a function from scale to denoiser, and the density to guide away from."""
    own = denoiser()
    worse = mixture(0, BLUR).denoiser(SCHEDULE)

    def free(x_t: Array, t: Array, cond: Cond) -> Denoised:
        return mixture().denoiser(SCHEDULE)(x_t, t, {})

    def pushed(**push: float) -> Callable[[float], Denoiser]:
        return lambda w: classifier_free(own, w, push=Push(**push))

    all_of, one = density(), density(0, BLUR)
    return {
        "classifier-free": (pushed(), all_of),
        "within t 0.2 to 0.7": (
            lambda w: classifier_free(own, scales.within(w, 0.2, 0.7)),
            all_of,
        ),
        "linear": (lambda w: classifier_free(own, scales.linear(w)), all_of),
        "cosine": (lambda w: classifier_free(own, scales.cosine(w)), all_of),
        "rescale 0.7": (pushed(rescale=0.7), all_of),
        "orthogonal (APG)": (pushed(parallel=0.0), all_of),
        "limited to 0.1 (APG)": (pushed(max_norm=0.1), all_of),
        "classifier of noisy data": (
            lambda w: by_gradient(free, noisy_classifier, SCHEDULE, w),
            all_of,
        ),
        "classifier of x_0_hat": (
            lambda w: by_gradient(free, clean_classifier, SCHEDULE, w),
            all_of,
        ),
        "autoguidance": (lambda w: autoguidance(own, lambda x, t, _: worse(x, t, {}), w), one),
    }


def drawer(
    make: Callable[[float], Denoiser], steps: int, method: Callable[..., Sampler] = heun
) -> Callable[[float, int, int], tuple[np.ndarray, float]]:
    """`(scale, number, seed)` -> positions along the direction [N], and the spread across it."""
    times = jnp.linspace(1, 0, steps + 1)

    @functools.partial(jax.jit, static_argnums=2)
    def run(scale: Any, key: Key, num: int) -> Array:
        noise_key, step_key = jax.random.split(key)
        x_T = jax.random.normal(noise_key, (num, DIM)) * SCHEDULE.sigma(times[0])
        cond = {"label": jnp.zeros(num, jnp.int32)}
        keys = jax.random.split(step_key, num)
        return sample(make(scale), method(SCHEDULE), times, x_T, cond, keys)[0]

    def draw(scale: float, num: int, seed: int) -> tuple[np.ndarray, float]:
        x = np.asarray(run(scale, make_key(seed), num), np.float64)
        z = x @ ALONG
        return z, float(np.sqrt(((x - np.outer(z, ALONG)) ** 2).sum() / (num * (DIM - 1))))

    return draw


def mean(values: np.ndarray | list[float]) -> list[float]:
    """Mean over seeds, and half of its 95% interval (normal, as there are many samples each)."""
    return [float(np.mean(values)), float(Z * np.std(values, ddof=1) / len(values) ** 0.5)]


def against_tilted_laws(num: int, steps: int, seeds: int) -> list[dict]:
    """A row for each guidance and scale, and for exact samples."""
    rows = []
    for name, (make, away) in guidances().items():
        draw = drawer(make, steps)
        for scale in SCALES:
            cdf, found = tilted(scale, away), []
            for seed in range(seeds):
                z, across = draw(scale, num, seed)
                exact = np.interp(np.random.default_rng(seed).random(num), cdf, Z_GRID)
                found.append([wasserstein(z, cdf), wasserstein(exact, cdf), across / SIDE])
            row: dict = {"guidance": name, "scale": scale}
            names = "distance", "exact samples", "spread across"
            row |= {k: mean(v) for k, v in zip(names, np.transpose(found), strict=True)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def plus_plus(num: int, steps: int) -> list[dict]:
    """CFG++: the scale of the tilted distribution that its samples are closest to."""
    times = jnp.linspace(1, 0, steps + 1)
    laws = {w: tilted(w, density()) for w in np.arange(0.0, 100.1, 0.5)}

    def make(scale: float) -> Denoiser:
        return classifier_free(denoiser(), scales.plus_plus(scale, SCHEDULE, times))

    rows, draw = [], drawer(make, steps, ddim)
    for scale in (0.0, 0.3, 0.6, 1.0):
        z, across = draw(scale, num, 0)
        far = {w: wasserstein(z, cdf) for w, cdf in laws.items()}
        best = min(far, key=far.__getitem__)
        row = {"steps": steps, "lambda": scale, "nearest scale": float(best)}
        rows.append(row | {"distance": far[best], "spread across": across / SIDE})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def of_components(kept: list[tuple[int, int]]) -> GaussianMixture:
    """A uniform mixture of those of the 16 pairs of positions that are `kept`, in the plane."""
    means = np.array([[PLACES[i], PLACES[j]] for i, j in kept])
    covs = np.array([np.diag([SPREADS[i], SPREADS[j]]) ** 2 for i, j in kept])
    return GaussianMixture(np.full(len(kept), 1 / len(kept)), means, covs)


def compositions(num: int, steps: int, seeds: int) -> list[dict]:
    """AND of two conditions: on different coordinates, and on the same one.

    The first restricts the first coordinate to two positions. The second restricts the second
    coordinate, which is independent, or the first one too.
    """
    pairs = [(i, j) for i in range(4) for j in range(4)]
    rows = []
    for name, axis in (("different coordinates", 1), ("the same coordinate", 0)):
        laws = [
            of_components(pairs).denoiser(SCHEDULE),
            of_components([p for p in pairs if p[0] in (0, 1)]).denoiser(SCHEDULE),
            of_components([p for p in pairs if p[axis] in (1, 2)]).denoiser(SCHEDULE),
        ]

        def denoise(x_t: Array, t: Array, cond: Cond, laws: list[Denoiser] = laws) -> Denoised:
            found = [law(x_t, t, {}).x_0 for law in laws]
            which = cond["which"][:, None]
            x_0 = jnp.where(which == 1, found[1], found[0])
            return Denoised(jnp.where(which == 2, found[2], x_0))

        def on(number: int) -> dict:
            return {"which": jnp.full(num, number, jnp.int32)}

        times = jnp.linspace(1, 0, steps + 1)

        @jax.jit
        def run(key: Key, denoise: Denoiser = denoise, times: Array = times) -> Array:
            x_T = jax.random.normal(key, (num, 2))
            both = classifier_free(denoise, 1.0, others=[(on(2), 1.0)])
            keys = jax.random.split(key, num)
            return sample(both, heun(SCHEDULE), times, x_T, on(1), keys)[0]

        # Product of the conditional densities over the unconditional one, by coordinate.
        one, two, all_of = (along(kept) for kept in ((0, 1), (1, 2), (0, 1, 2, 3)))
        law = [one, two] if axis else [one * two / all_of, all_of]
        cdfs = [np.cumsum(p) / np.sum(p) for p in law]
        far = []
        for seed in range(seeds):
            x, rng = np.asarray(run(make_key(seed))), np.random.default_rng(seed)
            exact = [np.interp(rng.random(num), cdf, Z_GRID) for cdf in cdfs]
            far.append([wasserstein(a, cdf) for a, cdf in zip(x.T, cdfs, strict=True)])
            far[-1] += [wasserstein(a, cdf) for a, cdf in zip(exact, cdfs, strict=True)]
            far[-1].append(float(np.corrcoef(x.T)[0, 1]))
        names = "first", "second", "first, exact", "second, exact", "correlation"
        columns = zip(names, np.transpose(far), strict=True)
        rows.append({"conditions of": name} | {k: mean(v) for k, v in columns})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def along(kept: tuple[int, ...]) -> np.ndarray:
    """Density on `Z_GRID` of one coordinate with positions `kept`."""
    var = SPREADS**2
    each = np.exp(-((Z_GRID[:, None] - PLACES) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)
    return each[:, list(kept)].mean(1)


WEIGHTS = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
RADIUS = 0.1


def flocks(size: int, groups: int, steps: int) -> list[dict]:
    """Number of eight modes that a group covers, and the change of the samples' distribution."""
    angles = 2 * np.pi * np.arange(8) / 8
    means = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    law = GaussianMixture(WEIGHTS, means, np.tile(RADIUS**2 * np.eye(2), (8, 1, 1)))
    num, exact, times = size * groups, law.denoiser(SCHEDULE), jnp.linspace(1, 0, steps + 1)
    x_T = jax.random.normal(make_key(0), (num, 2))
    keys = jax.random.split(make_key(1), num)

    @jax.jit
    def run(strength: Any) -> Array:
        denoise = flock(exact, SCHEDULE, size, separation=strength)
        return sample(denoise, heun(SCHEDULE), times, x_T, {}, keys)[0]

    @jax.jit
    def alone() -> Array:
        return sample(exact, heun(SCHEDULE), times, x_T, {}, keys)[0]

    rows = []
    for strength in (0.0, 0.25, 0.5, 1.0, 2.0):
        x = np.asarray(run(strength))
        if not strength and not np.array_equal(x, np.asarray(alone())):
            raise AssertionError("separation 0 is not what independent samples are")
        far = np.linalg.norm(x[:, None] - means, axis=-1)
        mode = far.argmin(1)
        covered = [len(set(group)) for group in mode.reshape(groups, size)]
        shares = np.bincount(mode, minlength=8) / num
        rows.append(
            {
                "size": size,
                "separation": strength,
                "modes": mean([float(c) for c in covered]),
                "total variation of the shares": float(np.abs(shares - WEIGHTS).sum() / 2),
                "spread within modes": float(np.sqrt((far.min(1) ** 2).mean() / 2) / RADIUS),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Runs everything; writes the results next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "laws.json")
    args = parser.parse_args()
    found = {
        "compositions": compositions(args.num, args.steps, args.seeds),
        "tilted": against_tilted_laws(args.num, args.steps, args.seeds),
        "plus_plus": [r for steps in (10, 25, 50, 100) for r in plus_plus(args.num, steps)],
        "flocks": [row for size in (4, 8) for row in flocks(size, 2000, args.steps)],
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
