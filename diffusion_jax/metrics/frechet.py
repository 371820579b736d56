"""Frechet distance between two sets of features."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean `[D]` and covariance `[D, D]` of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Moments of features `[N, D]`, the covariance with `N - 1`."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    centred = features - mean
    return Moments(mean, centred.T @ centred / (len(features) - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))` (Heusel et al. 2017).

    The trace of the root is the sum of the singular values of `C_a^(1/2) C_b^(1/2)`, which stays
    real for covariances without full rank.
    """
    roots = _square_root(a.covariance) @ _square_root(b.covariance)
    cross = np.linalg.svd(roots, compute_uv=False).sum()
    shift = ((a.mean - b.mean) ** 2).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def _square_root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
