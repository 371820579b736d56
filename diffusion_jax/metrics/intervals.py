"""95% confidence intervals of metrics.

A metric here is a number `T` computed from `N` samples, and its interval is for `E[T]` over draws
of `N` samples: the mean result of the same model at this `N`, including bias. The reference images
are fixed, except in `by_groups`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import t as students_t

Z = 1.959964  # two-sided 95% quantile of the normal distribution
T = 2.12  # the same of Student's t distribution with 16 degrees of freedom
DEALS = 16  # number of random splits of both sets in `by_groups`, into `GROUPS` groups
GROUPS = 3
HALVINGS = 8  # number of random splits of the samples into halves in `without_bias`


class Estimate(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


def too_few(*counts: tuple[str, int, int]) -> str:
    """Why an estimate is omitted: "12 samples are needed, and there are 5"; '' if it is not.

    Each of `counts` is (noun, number available, number needed for the estimate and its interval);
    duplicates are allowed.
    """
    short = {(what, there): least for what, there, least in sorted(counts) if there < least}
    needs = " and ".join(f"{least:,} {what}" for (what, _), least in short.items())
    has = " and ".join(f"{there:,}" for _, there in short)
    return f"{needs} are needed, and there are {has}" if short else ""


def quantile(num: int) -> float:
    """Two-sided 95% quantile of Student's t if a variance is estimated from `num` >= 2 rows."""
    return float(students_t.ppf(0.975, num - 1))


def normal(value: float, variance: float, num: int) -> Estimate:
    """The value -+ 1.96 standard deviations, or more if few rows estimate the variance."""
    half = quantile(num) * float(np.sqrt(variance))
    return Estimate(value, value - half, value + half)


def variance_of_mean(values: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Variance of the mean of independent `values` `[N]`.

    For a metric's influence function it is the variance of the metric (the infinitesimal jackknife:
    Efron 1982, chapter 6). It is too large, up to twofold, for a metric whose first derivative
    vanishes, as a distance does if the samples follow the distribution of the reference set.

    `strata`, int `[N]`, are kinds of rows whose numbers were fixed in advance, like those of
    classes: only the variance within kinds counts. Kinds with one row are pooled.
    """
    kinds = _pooled(len(values), strata)
    total = 0.0
    for kind in np.unique(kinds):
        rows = values[kinds == kind]
        if len(rows) > 1:
            total += len(rows) * float(np.var(rows, ddof=1))
    return total / len(values) ** 2


def mean(values: np.ndarray) -> Estimate:
    """The mean of independent values `[N]`."""
    return normal(float(values.mean()), variance_of_mean(values), len(values))


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    data: np.ndarray,
    repeats: int,
    strata: np.ndarray | None = None,
) -> Estimate:
    """A statistic of the rows of `data` `[N, ...]`, such as a mean or a quantile.

    The interval is `normal`, from the variance over `repeats` resamples. Resamples repeat rows, so
    this is not suitable for distances between sets or nearest neighbours within one. With `strata`,
    as for `variance_of_mean`, rows are resampled within their kind.
    """
    rng = np.random.default_rng(0)
    kinds = _pooled(len(data), strata)
    groups = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    values = []
    for _ in range(repeats):
        rows = [group[rng.integers(len(group), size=len(group))] for group in groups]
        values.append(statistic(data[np.concatenate(rows)]))
    return normal(statistic(data), float(np.var(values, ddof=1)), len(data))


def wilson(share: float, num: float) -> Estimate:
    """Wilson's score interval (1927) of a probability, for a `share` of hits in `num` trials."""
    centre = (share + Z**2 / (2 * num)) / (1 + Z**2 / num)
    half = Z / (1 + Z**2 / num) * np.sqrt(share * (1 - share) / num + Z**2 / (4 * num**2))
    # The share lies within the interval, except for rounding if it is 0 or 1.
    return Estimate(
        share, float(np.clip(centre - half, 0, share)), float(np.clip(centre + half, share, 1))
    )


def share(value: float, variance: float, num: int) -> Estimate:
    """Wilson's interval of a share whose variance is not that of independent trials.

    It is that of as many independent trials as would have this variance; of `num` trials if the
    share is 0 or 1 and the variance 0.
    """
    effective = value * (1 - value) / variance if variance > 0 else 0.0
    return wilson(value, effective or num)


def by_groups(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    num: int,
    num_reference: int,
    strata: np.ndarray | None = None,
) -> float:
    """Variance of a statistic of both sets over draws of both, for neighbourhood statistics.

    Recall and coverage are not sums over samples, and resamples, which repeat rows, have other
    nearest neighbours than draws. But random groups of both sets are independent draws, of a third
    of the size in both sets, and the variance of a statistic to which each point contributes only
    through its neighbourhood falls as one over the number of rows (Penrose & Yukich 2001). The
    result is the variance between groups over their number, averaged over several splits, and
    widened for its own uncertainty of about a third, as from 16 degrees of freedom.

    The statistic takes the numbers of some of `num` samples and of some of `num_reference`
    reference images; every group has its share of each kind of samples (`strata`, as for
    `variance_of_mean`).
    """
    rng, found = np.random.default_rng(0), []
    for _ in range(DEALS):
        deals = _deal(num, strata, GROUPS, rng), _deal(num_reference, None, GROUPS, rng)
        values = [statistic(*group) for group in zip(*deals, strict=True)]
        found.append(np.var(values, ddof=1) / GROUPS)
    return float(np.mean(found)) * (T / Z) ** 2


def without_bias(
    statistic: Callable[[np.ndarray], float],
    value: float,
    variance: float,
    num: int,
    strata: np.ndarray | None = None,
) -> Estimate:
    """A statistic with a bias `c / N`, extrapolated to infinitely many samples.

    The statistic takes the numbers of some samples, and has `value` and `variance` for all `num`.
    The line through its value for all samples and its mean over halves of them, as a function of
    `1 / N`, is evaluated at 0 (Chong & Forsyth 2020, who fit 15 sizes; the two here are closest to
    0, where the bias is most linear). The interval is that of the value in the limit; the random
    choice of halves, each with its share of every kind (`strata`), adds to the variance.
    """
    rng, means = np.random.default_rng(0), []
    for _ in range(HALVINGS):
        first, second = map(statistic, _deal(num, strata, 2, rng))
        means.append((first + second) / 2)
    limit = 2 * value - float(np.mean(means))
    return normal(limit, variance + float(np.var(means, ddof=1)) / HALVINGS, num)


def _pooled(num: int, strata: np.ndarray | None) -> np.ndarray:
    """The kind of each row, where kinds with a single row are pooled.

    A single such row, which has no variance, is pooled with the smallest other kind.
    """
    kinds, counts = np.unique(_kinds(num, strata), return_inverse=True, return_counts=True)[1:]
    alone = counts[kinds] == 1
    if alone.sum() == 1 and len(counts) > 1:
        alone |= kinds == np.argsort(counts, kind="stable")[1]
    pooled: np.ndarray = np.where(alone, len(counts), kinds)
    return pooled


def _kinds(num: int, strata: np.ndarray | None) -> np.ndarray:
    """The kind of each row; a single kind without `strata`."""
    return np.zeros(num, int) if strata is None else strata


def _deal(
    num: int, strata: np.ndarray | None, groups: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Randomly splits the numbers below `num` into groups, each with its share of every kind."""
    order = rng.permutation(num)
    order = order[np.argsort(_kinds(num, strata)[order], kind="stable")]
    return [order[group::groups] for group in range(groups)]
