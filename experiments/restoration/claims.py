"""Two claims: MMPS is exact for normal data if its solver converges, and TDS as its theory says.

Adds both to `results.json`; see README.md.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from diffusion_jax.diffusion.corruption import fold_in, sample_keys, sample_noise
from diffusion_jax.metrics.intervals import bootstrap, mean
from diffusion_jax.restoration.operators import Observation
from diffusion_jax.restoration.posterior_mean import mmps
from diffusion_jax.restoration.solvers import Solver
from diffusion_jax.restoration.twisted import twisted
from diffusion_jax.samplers import loop
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Denoised
from experiments.restoration import theirs
from experiments.restoration.exact import RESULTS, lines
from experiments.restoration.ours import SCHEDULE, times
from experiments.restoration.problems import Matrix, operators, prior
from tests.oracles import GaussianMixture

SIGMA = 0.05
STEPS = 20
SIZES = (16, 64, 256, 1024)
PARTICLES = 262144
"""Of all groups together, at each size."""
REPEATS = 32
"""Groups of azula, at each size."""
LEVELS = (0.2, 0.4, 0.6, 0.8)
"""Times at which denoisers are compared."""


def normal(dim: int) -> GaussianMixture:
    """The normal law with the moments of the prior: far from isotropic."""
    center, cov = prior(dim).moments()
    return GaussianMixture(np.ones(1), center[None], cov[None])


def iterations(dim: int) -> dict[str, Any]:
    """Errors of `E[x_0 | x_t, y]` for a normal prior and a blur, by iterations of the solver.

    Root-mean-square, in units of the spread of the posterior, over `x_t` of the posterior.
    """
    law, matrix = normal(dim), operators(dim)["blur"]
    rng, found = np.random.default_rng(0), {}
    num = 64
    x_0 = rng.multivariate_normal(law.means[0], law.covs[0], num)
    y = x_0 @ matrix.T + SIGMA * rng.normal(size=(num, len(matrix)))
    spread = np.sqrt(np.trace(law.posterior(matrix, y[0], SIGMA).moments()[1]) / dim)
    tensor = lambda a: torch.tensor(np.asarray(a), dtype=torch.float32)  # noqa: E731
    seen = Observation(
        jnp.asarray(y[..., None], jnp.float32), Matrix.of(matrix), jnp.full(num, SIGMA)
    )
    plain = law.denoiser(SCHEDULE)
    exact = theirs.Exact(theirs.mixture_denoiser(law.weights, law.means, law.covs))

    def denoise(x_t: jax.Array, t: jax.Array, cond: Any) -> Denoised:
        return Denoised(plain(x_t[..., 0], t, cond).x_0[..., None])

    for count in (1, 3, 10, dim + 8):
        solver = Solver("gmres", count, 1e-7)
        ours = jax.jit(lambda x, t, s=solver: mmps(denoise, seen, SCHEDULE, solver=s)(x, t, {}).x_0)
        cov_y = theirs.IsotropicCovariance(torch.tensor(SIGMA**2))
        azula = theirs.MMPSDenoiser(
            exact, tensor(y), lambda x: x @ tensor(matrix).T, cov_y, iterations=count
        )
        squares: dict[str, list] = {"ours": [], "azula": []}
        for t in LEVELS:
            alpha, sigma = (float(c) for c in SCHEDULE.scales(jnp.float32(t)))
            x_t = alpha * x_0 + sigma * rng.normal(size=x_0.shape)
            right = [
                alone(law.posterior(matrix, one, SIGMA), x, alpha, sigma)
                for one, x in zip(y, x_t, strict=True)
            ]
            mine = ours(jnp.asarray(x_t[..., None], jnp.float32), jnp.full(num, t))[..., 0]
            other = azula(tensor(x_t), torch.tensor(t)).mean.detach().numpy()
            for side, value in (("ours", mine), ("azula", other)):
                squares[side].append(((np.asarray(value) - right) ** 2).mean(1))
        root = lambda rows: float(np.sqrt(rows.mean()) / spread)  # noqa: E731
        found[str(count)] = {
            side: list(bootstrap(root, np.mean(rows, axis=0), 300))
            for side, rows in squares.items()
        }
    return {"dim": dim, "sigma": SIGMA, "errors": found}


def alone(law: GaussianMixture, x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """`E[x_0 | x_t]` of one normal law, in float64."""
    center, cov = law.means[0], law.covs[0]
    known = alpha**2 * cov + sigma**2 * np.eye(len(cov))
    return center + alpha * cov @ np.linalg.solve(known, x - alpha * center)


def chain(law: GaussianMixture, steps: int) -> GaussianMixture:
    """The law of `x_0` that ancestral sampling ends with for a normal law: normal too.

    Each step is linear in `x_t` (Eq. 7, Ho et al. 2020), and its variance the large one; a step so
    long that only DDIM's formula is accurate, as the first one, has the small one.
    """
    center, cov = law.means[0], law.covs[0]
    scales = [tuple(float(c) for c in SCHEDULE.scales(jnp.float32(t))) for t in times(steps)]
    one = np.eye(len(center))
    m, c = np.zeros(len(center)), scales[0][1] ** 2 * one
    for (a, v), (b, w) in itertools.pairwise(scales):
        gain = a * cov @ np.linalg.inv(a**2 * cov + v**2 * one)
        rest = 1 - (a * w / (b * v)) ** 2
        step = a / b * (w / v) ** 2 * one + b * rest * gain
        m = step @ m + b * rest * (center - a * gain @ center)
        large = 0.0 if w == 0 else (w if v * b > 30 * w * a else v) ** 2 * rest
        c = step @ c @ step.T + large * one
    return GaussianMixture(np.ones(1), m[None], c[None])


def groups(
    law: GaussianMixture, matrix: np.ndarray, y: np.ndarray, size: int, num: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean `[num, D]` and the log evidence `[num]` of groups of particles."""
    total, dim = size * num, matrix.shape[1]
    square = np.zeros((dim, 1), np.float32)
    square[: len(y), 0] = y
    plain = law.denoiser(SCHEDULE)

    def denoise(x_t: jax.Array, t: jax.Array, cond: Any) -> Denoised:
        return Denoised(plain(x_t[..., 0], t, cond).x_0[..., None])

    @jax.jit
    def run(keys: jax.Array) -> Any:
        seen = Observation(
            jnp.tile(jnp.asarray(square), (total, 1, 1)), Matrix.of(matrix), jnp.full(total, SIGMA)
        )
        sampler = twisted(SCHEDULE, seen, size, data_std=0.5)
        x_T = sample_noise(fold_in(keys, 0), (dim, 1))
        grid = jnp.asarray(times(steps), jnp.float32)
        return loop.run(denoise, sampler, grid, x_T, {}, fold_in(keys, 1))[:2]

    x, state = run(sample_keys(make_key(size + 1), jnp.arange(total)))
    weights = np.exp(np.asarray(state.log_weights, float)).reshape(num, size, 1)
    center = (weights * np.asarray(x, float).reshape(num, size, dim)).sum(1)
    evidence = np.asarray(state.log_evidence, float)[::size]
    # Entries of `y` below those of the matrix are 0 = 0 + noise.
    return center, evidence + 0.5 * (dim - len(y)) * np.log(2 * np.pi * SIGMA**2)


def slope(errors: list[np.ndarray]) -> list[float]:
    """Of the logarithm of the root-mean-square error over that of the size, with its interval."""
    rng, logs = np.random.default_rng(0), np.log(SIZES)

    def fitted(rows: list[np.ndarray]) -> float:
        return float(np.polyfit(logs, [0.5 * np.log(np.mean(e)) for e in rows], 1)[0])

    again = [fitted([rng.choice(e, len(e)) for e in errors]) for _ in range(500)]
    return [fitted(errors), *(float(q) for q in np.quantile(again, (0.025, 0.975)))]


def particles() -> dict[str, Any]:
    """Errors of the mean by number of particles, and the evidence, of a normal law in the plane."""
    law, matrix = normal(2), operators(2)["mask"]
    y = np.array([0.4])
    ends = chain(law, STEPS)
    right = ends.posterior(matrix, y, SIGMA)
    center, cov = right.moments()
    spread = np.trace(cov)
    found: dict[str, Any] = {"size": list(SIZES), "ours": [], "azula": [], "evidence": []}
    errors: dict[str, list[np.ndarray]] = {"ours": [], "azula": []}
    for size in SIZES:
        means, evidence = groups(law, matrix, y, size, PARTICLES // size, STEPS)
        errors["ours"].append(((means - center) ** 2).sum(1) / spread)
        ratios = np.exp(evidence - ends.log_evidence(matrix, y, SIGMA))
        found["evidence"].append(list(mean(ratios)))
        others = np.stack([azula_mean(law, matrix, y, size, i) for i in range(REPEATS)])
        exact = law.posterior(matrix, y, SIGMA).moments()[0]
        # Its chain has another variance: compared with the posterior of the prior itself.
        errors["azula"].append(((others - exact) ** 2).sum(1) / spread)
    root: Callable = lambda rows: float(np.sqrt(rows.mean()))  # noqa: E731
    for side, rows in errors.items():
        found[side] = [list(bootstrap(root, row, 300)) for row in rows]
        found[f"slope, {side}"] = slope(rows)
    return {"steps": STEPS, "sigma": SIGMA, **found}


def azula_mean(
    law: GaussianMixture, matrix: np.ndarray, y: np.ndarray, size: int, seed: int
) -> np.ndarray:
    """The mean of its particles, which have no weights."""
    tensor = lambda a: torch.tensor(np.asarray(a), dtype=torch.float32)  # noqa: E731
    center, cov = law.moments()
    task = theirs.Task(
        theirs.mixture_denoiser(law.weights, law.means, law.covs),
        tensor(matrix), SIGMA, tensor(y[None]), size, tensor(center), tensor(cov),
    )  # fmt: skip
    torch.manual_seed(seed)
    return np.asarray(theirs.azula_tds(task, STEPS, 0.5)).mean(0)


def main() -> None:
    """Measures both, and adds them to the results."""
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    torch.set_num_threads(1)
    result["mmps"] = [iterations(dim) for dim in (8, 64)]
    result["tds"] = particles()
    RESULTS.write_text(lines(result))


if __name__ == "__main__":
    main()
