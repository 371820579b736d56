"""Statistics over seeds: means, differences paired by seed, and the number of seeds needed."""

from typing import NamedTuple

import numpy as np
from scipy.stats import t as students_t

POWER = 0.8  # probability of resolving a difference with the recommended number of seeds
MOST_SEEDS = 10_000


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """`(mean, low, high)` of `[N]` values by Student's t, 95%; NaN limits for one value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, float("nan"), float("nan")
    half = students_t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return mean, float(mean - half), float(mean + half)


class Difference(NamedTuple):
    """A mean difference with its 95% interval."""

    mean: float  # of the differences by seed
    low: float  # lower limit; NaN for one seed
    high: float  # upper limit; NaN for one seed
    seeds: int  # number of seeds that both have
    # number of seeds that would resolve a difference as large as this one, with the same spread
    # between seeds, with probability `POWER`; 0 if unknown
    needed: int

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """`a - b` for `[N]` values of two settings, with the same seeds in the same order.

    Effects of a seed on both, such as its order of data, cancel.
    """
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean, low, high = mean_interval(differences)
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    return Difference(mean, low, high, len(differences), _needed(abs(mean), spread))


def _needed(size: float, spread: float) -> int:
    """Smallest N with `(t_0.975 + t_POWER) spread / sqrt(N) <= size`, t with N - 1 degrees."""
    if not size or not spread:
        return 0
    n = np.unique(np.geomspace(2, MOST_SEEDS, 2000).astype(int))
    reach = (students_t.ppf(0.975, n - 1) + students_t.ppf(POWER, n - 1)) * spread / np.sqrt(n)
    enough = n[reach <= size]
    return int(enough[0]) if len(enough) else 0
