"""95% intervals."""

from collections.abc import Callable

import numpy as np

Z = 1.959964
"""Two-sided 95% quantile of the normal law."""


def bootstrap(
    statistic: Callable[[np.ndarray], float], data: np.ndarray, repeats: int, seed: int = 0
) -> tuple[float, float, float]:
    """`(value, low, high)` of a statistic of the rows of `data`.

    The interval is the value -+ 1.96 standard deviations over resamplings: their percentiles would
    not do, since a resample repeats rows and thereby shifts a Frechet distance upwards.
    """
    rng = np.random.default_rng(seed)
    value = statistic(data)
    spread = np.std(
        [statistic(data[rng.integers(len(data), size=len(data))]) for _ in range(repeats)], ddof=1
    )
    return value, float(value - Z * spread), float(value + Z * spread)


def wilson(hits: np.ndarray) -> tuple[float, float, float]:
    """`(share, low, high)` of true values in bool `[N]`: Wilson's score interval (1927)."""
    n, p = len(hits), float(np.mean(hits))
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return p, float(centre - half), float(centre + half)
