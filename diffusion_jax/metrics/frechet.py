"""Frechet distance between Gaussians fitted to two sets of features (FID)."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

CHUNK = 4096


class Moments(NamedTuple):
    """Mean `[D]` and covariance `[D, D]` of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Moments of features `[N, D]`, the covariance with `N - 1`; memory maps are read in chunks."""
    return moments_of_chunks(
        features[start : start + CHUNK] for start in range(0, len(features), CHUNK)
    )


def moments_of_chunks(chunks: Iterable[np.ndarray]) -> Moments:
    """Moments of the rows of all `chunks` `[n, D]`, without holding them in memory together.

    Means and sums of squares are merged by Eq. 2.1 of Chan, Golub & LeVeque 1983.

    Raises:
        ValueError: there are fewer than two rows, which have no covariance.
    """
    num, mean, squares = 0, np.zeros(()), np.zeros(())
    for chunk in chunks:
        part = np.asarray(chunk, np.float64)
        part_mean = part.mean(0)
        centred = part - part_mean
        shift, total = part_mean - mean, num + len(part)
        outer = np.multiply.outer(shift, shift) * (num * len(part) / total)
        squares = squares + centred.T @ centred + outer
        mean = mean + shift * (len(part) / total)
        num = total
    if num < 2:
        raise ValueError(f"the moments of {num} rows have no covariance: two or more are needed")
    return Moments(mean, squares / (num - 1))


def frechet_distance(a: Moments, b: Moments, root: np.ndarray | None = None) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))` (Heusel et al. 2017).

    The trace of the root is that of `(R C_a R)^(1/2)` with `R = C_b^(1/2)`, which is symmetric and
    therefore real for covariances without full rank; eigenvalues within rounding of 0 count as 0.
    To compare many with one `b`, pass `root = square_root(b.covariance)`.

    With `N` samples it is too large by about `c / N`, and likewise with few reference images.
    """
    root = square_root(b.covariance) if root is None else root
    values = np.linalg.eigvalsh(root @ a.covariance @ root)
    cross = np.sqrt(values[_nonzero(values)]).sum()
    shift = ((a.mean - b.mean) ** 2).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def frechet_influence(features: np.ndarray, reference: Moments, root: np.ndarray) -> np.ndarray:
    """Influence function `[N]` of the distance: the effect of each of the samples `[N, D]`.

    The derivative of the distance to a fixed reference when the samples' distribution gets more
    mass at `x`: with `d = x - m`, `R = C_ref^(1/2)` (`root`) and `W = R C R` it is, up to a
    constant, `2 (m - m_ref) d + |d|^2 - d R W^(-1/2) R d`. The last term omits directions in which
    the samples or the reference do not vary.
    """
    own = moments(features)
    values, vectors = np.linalg.eigh(root @ own.covariance @ root)
    nonzero = _nonzero(values)
    project = root @ vectors[:, nonzero] / values[nonzero] ** 0.25
    found = []
    for start in range(0, len(features), CHUNK):
        d = np.asarray(features[start : start + CHUNK], np.float64) - own.mean
        shift = 2 * d @ (own.mean - reference.mean)
        found.append(shift + (d**2).sum(1) - ((d @ project) ** 2).sum(1))
    return np.concatenate(found)


def _nonzero(values: np.ndarray) -> np.ndarray:
    """Which of ascending eigenvalues exceed rounding errors."""
    found: np.ndarray = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return found


def square_root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance `[D, D]`."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
