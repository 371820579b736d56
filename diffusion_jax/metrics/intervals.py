"""95% intervals."""

from collections.abc import Callable

import numpy as np

Z = 1.959964
"""Two-sided 95% quantile of the normal law."""


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    data: np.ndarray,
    repeats: int,
    strata: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """`(value, low, high)` of a statistic of the rows of `data` `[N, ...]`.

    The interval is the value -+ 1.96 standard deviations over resamplings: their percentiles would
    not do, since a resample repeats rows and thereby shifts a Frechet distance upwards.

    Args:
        statistic: of rows.
        data: the rows.
        repeats: resamplings.
        strata: int `[N]`, where the number of rows of each kind was fixed beforehand, as that of
            each class is: rows are then drawn again within their kind.
        seed: of the resamplings.
    """
    rng = np.random.default_rng(seed)
    kinds = np.zeros(len(data), int) if strata is None else strata
    groups = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    values = []
    for _ in range(repeats):
        rows = [group[rng.integers(len(group), size=len(group))] for group in groups]
        values.append(statistic(data[np.concatenate(rows)]))
    value, spread = statistic(data), np.std(values, ddof=1)
    return value, float(value - Z * spread), float(value + Z * spread)


def wilson(hits: np.ndarray) -> tuple[float, float, float]:
    """`(share, low, high)` of true values in bool `[N]`: Wilson's score interval (1927)."""
    n, p = len(hits), float(np.mean(hits))
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return p, float(centre - half), float(centre + half)
