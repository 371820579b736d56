"""Frechet distance between two sets of features."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

CHUNK = 4096


class Moments(NamedTuple):
    """Mean `[D]` and covariance `[D, D]` of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Moments of features `[N, D]`, the covariance with `N - 1`; a memory map is read in parts."""
    return moments_of_chunks(
        features[start : start + CHUNK] for start in range(0, len(features), CHUNK)
    )


def moments_of_chunks(chunks: Iterable[np.ndarray]) -> Moments:
    """Moments of the rows of all `chunks` `[n, D]`, which need not be in memory together.

    Means and sums of squares are merged by Eq. 2.1 of Chan, Golub & LeVeque 1983.

    Raises:
        ValueError: there are fewer than two rows, of which there is no covariance.
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
        raise ValueError(f"{num} rows have no covariance: moments are of two or more")
    return Moments(mean, squares / (num - 1))


def frechet_distance(a: Moments, b: Moments, root: np.ndarray | None = None) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))` (Heusel et al. 2017).

    The trace of the root is that of `(R C_a R)^(1/2)` with `R = C_b^(1/2)`, which is symmetric, and
    so real for covariances without full rank; what rounding leaves of eigenvalues that are 0 is 0.
    Where many are measured against one `b`, `root` is `square_root(b.covariance)`.

    Of `N` samples it is too large by about `c / N`, and of few reference images likewise.
    """
    root = square_root(b.covariance) if root is None else root
    values = np.linalg.eigvalsh(root @ a.covariance @ root)
    cross = np.sqrt(values[_there(values)]).sum()
    shift = ((a.mean - b.mean) ** 2).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def frechet_influence(features: np.ndarray, reference: Moments, root: np.ndarray) -> np.ndarray:
    """How much each of the samples `[N, D]` moves the distance: its influence function `[N]`.

    The derivative of the distance from a given reference where the law of the samples takes on more
    of `x`: with `d = x - m`, `R = C_ref^(1/2)` (`root`) and `W = R C R` it is, up to a constant,
    `2 (m - m_ref) d + |d|^2 - d R W^(-1/2) R d`. Directions in which the samples or the reference
    do not vary are left out of the last term.
    """
    own = moments(features)
    values, vectors = np.linalg.eigh(root @ own.covariance @ root)
    there = _there(values)
    project = root @ vectors[:, there] / values[there] ** 0.25
    found = []
    for start in range(0, len(features), CHUNK):
        d = np.asarray(features[start : start + CHUNK], np.float64) - own.mean
        shift = 2 * d @ (own.mean - reference.mean)
        found.append(shift + (d**2).sum(1) - ((d @ project) ** 2).sum(1))
    return np.concatenate(found)


def _there(values: np.ndarray) -> np.ndarray:
    """Which of ascending eigenvalues are more than rounding."""
    found: np.ndarray = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return found


def square_root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance `[D, D]`."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
