"""Priors, operators and observations whose posterior is known, and how far samples are from it.

A mixture of Gaussians under a linear operator and normal noise has a mixture as its posterior
(`tests/oracles.py`), so that samples are compared with exact ones.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flax import struct
from scipy import special

from diffusion_jax.metrics.sliced import sliced_wasserstein
from diffusion_jax.restoration.linear import Blur, Downscale, gaussian_kernel
from diffusion_jax.restoration.operators import Mask, Operator, Spectrum
from tests.oracles import GaussianMixture, three_components

DIMS = (2, 8, 64)
SIGMAS = (0.05, 0.3)
EXACT = 2000
"""Exact samples of each posterior, for comparison."""
LINES = 32
"""Random lines of the sliced distance, and of the regions."""
REGIONS = (0.5, 0.9)


@functools.cache
def prior(dim: int) -> GaussianMixture:
    """Data within [-1, 1]: three components in the plane, else eight kinds of signals.

    A signal has a bump to the left, one to the right and a ripple, each of either sign and none
    independent of the others, and smooth random variations; its components have different widths.
    What is seen of one half leaves the sign of the other open, and a mean over neighbours that of
    the ripple.
    """
    if dim == 2:
        plane = three_components()
        return GaussianMixture(plane.weights, 0.5 * plane.means, 0.25 * plane.covs)
    place = (np.arange(dim) + 0.5) / dim
    bumps = [np.exp(-0.5 * ((place - middle) / 0.12) ** 2) for middle in (0.25, 0.75)]
    ripple = np.where(np.arange(dim) % 2, -1.0, 1.0)
    signs = np.array([[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)])
    means = signs @ np.stack([0.5 * bumps[0], 0.45 * bumps[1], 0.15 * ripple])
    weights = np.array([0.22, 0.14, 0.06, 0.14, 0.1, 0.05, 0.09, 0.2])
    smooth = np.exp(-0.5 * ((place[:, None] - place) / 0.15) ** 2)
    values, vectors = np.linalg.eigh(smooth)
    smooth = (vectors[:, -5:] * values[-5:]) @ vectors[:, -5:].T
    widths = np.linspace(0.6, 1.4, 8)[[3, 0, 6, 5, 2, 7, 1, 4], None, None] ** 2
    return GaussianMixture(weights, means, widths * (0.1**2 * smooth + 0.05**2 * np.eye(dim)))


@struct.dataclass
class Matrix:
    """`y = matrix x` along one axis, of as many entries: an operator with rows of zeros below.

    So that one program serves all operators. Its singular value decomposition is that of LAPACK.
    """

    matrix: jax.Array  # `[D, D]`
    left: jax.Array
    values: jax.Array
    right: jax.Array

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Matrix":
        """From `[m, D]`, `m <= D`."""
        square = np.zeros((matrix.shape[1],) * 2)
        square[: len(matrix)] = matrix
        left, values, right = np.linalg.svd(square)
        # A value that is 0 but for rounding is 0: that direction is not seen.
        values = np.where(values > 1e-6 * values[0], values, 0.0)
        return cls(*(jnp.asarray(a, jnp.float32) for a in (square, left, values, right)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, D, 1] -> [B, D, 1]`."""
        return _times(self.matrix, x)

    def spectrum(self, x: jax.Array) -> Spectrum:
        """The decomposition, for any batch."""
        return Spectrum(
            self.values[None, :, None],
            lambda x: _times(self.right, x),
            lambda z: _times(self.right.T, z),
            lambda y: (self.values > 0)[None, :, None] * _times(self.left.T, y),
        )


def _times(matrix: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, x, precision="highest")


def operators(dim: int) -> dict[str, np.ndarray]:
    """Matrices `[m, D]` of operators of the package along one axis; in the plane one by hand."""
    known = (jnp.arange(dim) < dim // 2).astype(float)[None, :, None]
    found: dict[str, np.ndarray] = {"mask": matrix_of(Mask(known), dim)[: dim // 2]}
    if dim == 2:
        found["matrix"] = np.array([[1.0, 0.6], [0.2, -0.4]])
    else:
        size = {8: 5, 64: 13}[dim]
        kernel = gaussian_kernel(jnp.array([dim / 32 + 0.6]), size, 1)
        found["blur"] = matrix_of(Blur(kernel), dim)
    found["downscale"] = matrix_of(Downscale(4 if dim == 64 else 2), dim)
    return found


def matrix_of(operator: Operator, dim: int) -> np.ndarray:
    """Of a linear operator on `[B, D, 1]`."""
    columns = [operator(unit[None, :, None]) for unit in jnp.eye(dim)]
    return np.stack([np.asarray(column, float).ravel() for column in columns], axis=1)


class Case(NamedTuple):
    """A prior seen through an operator several times."""

    name: str
    prior: GaussianMixture
    operator: str
    matrix: np.ndarray  # `[m, D]`
    sigma: float
    y: np.ndarray  # `[N, m]`, one for each observation
    posteriors: list[GaussianMixture]
    exact: list[np.ndarray]  # of each posterior, `[EXACT, D]`


def case(dim: int, operator: str, sigma: float, num: int, seed: int) -> Case:
    """With `num` observations of draws from the prior."""
    law, matrix = prior(dim), operators(dim)[operator]
    rng = np.random.default_rng((seed, dim, int(1000 * sigma), len(operator)))
    y = draw(law, num, rng) @ matrix.T
    y += sigma * rng.normal(size=y.shape)
    posteriors = [law.posterior(matrix, one, sigma) for one in y]
    exact = [draw(one, EXACT, rng) for one in posteriors]
    name = f"{dim}D {operator} {sigma:g}"
    return Case(name, law, operator, matrix, sigma, y, posteriors, exact)


def draw(law: GaussianMixture, num: int, rng: np.random.Generator) -> np.ndarray:
    """Exact samples `[num, D]`, in numpy: posteriors are many, and a program for each is slow."""
    counts = rng.multinomial(num, law.weights)
    parts = [
        mean + rng.normal(size=(count, len(mean))) @ np.linalg.cholesky(cov).T
        for count, mean, cov in zip(counts, law.means, law.covs, strict=True)
    ]
    return rng.permutation(np.concatenate(parts))


def responsibilities(law: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """Probability of each component given `x` `[N, D]`: `[N, K]`."""
    logits = []
    for weight, mean, cov in zip(law.weights, law.means, law.covs, strict=True):
        root = np.linalg.cholesky(cov)
        white = scipy.linalg.solve_triangular(root, (x - mean).T, lower=True)
        logits.append(
            np.log(weight + 1e-300) - 0.5 * (white**2).sum(0) - np.log(np.diag(root)).sum()
        )
    return special.softmax(np.stack(logits, axis=1), axis=1)


def masses(law: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """What the central regions of samples hold of the posterior, in the mean over lines: `[R]`.

    Along each line from the quantile `(1 - p) / 2` to `(1 + p) / 2` of the samples; for exact
    samples the expectation is `p`, for any number of them (by the quantiles of Weibull).
    """
    lines = np.random.default_rng(1).normal(size=(LINES, x.shape[1]))
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    middle = law.means @ lines.T
    std = np.sqrt(np.einsum("pi,kij,pj->kp", lines, law.covs, lines))

    def below(level: float) -> np.ndarray:
        end = np.quantile(x @ lines.T, level, axis=0, method="weibull")
        return law.weights @ special.ndtr((end - middle) / std)

    return np.array([np.mean(below((1 + p) / 2) - below((1 - p) / 2)) for p in REGIONS])


MEASURES = ("distance", "weights", *(f"{p:.0%}" for p in REGIONS))


def measured(case: Case, samples: Callable[[int], np.ndarray]) -> np.ndarray:
    """The measures of `samples(i)` `[S, D]` for each observation i: `[N, 4]`.

    The squared sliced Wasserstein distance in units of the posterior's own variance per dimension;
    the total variation of the weights of components; what the two regions hold.
    """
    rows = []
    for i, (law, exact) in enumerate(zip(case.posteriors, case.exact, strict=True)):
        x = np.asarray(samples(i), float)
        if not np.isfinite(x).all() or np.abs(x).max() > 1e6:  # diverged
            rows.append([np.inf, 1.0, 0.0, 0.0])
            continue
        variance = np.trace(law.moments()[1]) / x.shape[1]
        distance = sliced_wasserstein(x, exact, LINES)[0] / variance
        weights = np.abs(responsibilities(law, x).mean(0) - law.weights).sum() / 2
        rows.append([distance, weights, *masses(law, x)])
    return np.array(rows)
