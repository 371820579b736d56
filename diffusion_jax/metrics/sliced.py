"""Sliced Wasserstein distance: optimal transport along random lines, where it is sorting."""

import numpy as np


def sliced_wasserstein(
    features: np.ndarray, reference: np.ndarray, projections: int = 128
) -> tuple[float, np.ndarray]:
    """Mean of the squared Wasserstein-2 distances along random lines, and its influence function.

    From samples `[N, D]` and a fixed reference set `[M, D]`: a number, too large for few samples,
    and `[N]`, up to a constant. Along a line the distance is that of the quantile functions:
    `mean (x_i - t_i)^2` plus the variance of the reference quantiles assigned to each sample, where
    `t_i` is the mean of those from `(i - 1) / N` to `i / N` and `x_i` the i-th smallest sample
    (Bonneel et al. 2015). The influence of a sample is the Kantorovich potential, with derivative
    `2 (x - t(x))`. The directions are uniform and fixed; the value is for these `projections`.
    """
    n, dim = features.shape
    lines = np.random.default_rng(0).normal(size=(projections, dim))
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    steps = np.arange(n + 1) / n
    grid = np.arange(len(reference) + 1) / len(reference)
    total, influence = 0.0, np.zeros(n)
    for line in lines:
        x, r = features @ line, np.sort(reference @ line).astype(np.float64)
        order = np.argsort(x)
        x = x[order].astype(np.float64)
        below = np.interp(steps, grid, np.concatenate([[0.0], np.cumsum(r)]) / len(r))
        t = np.diff(below) * n
        total += float((x**2).mean() - 2 * (x * t).mean() + (r**2).mean())
        slope = 2 * (x - t)
        between = np.diff(x) * (slope[1:] + slope[:-1]) / 2
        influence[order] += np.concatenate([[0.0], np.cumsum(between)])
    return total / projections, influence / projections
