"""95% intervals.

Every metric here is a number `T` computed from `N` samples, and an interval is one of `E[T]` over
draws of `N` samples: what the same model gives on average at this `N`, its bias included. The
reference images are given, not drawn, but for `by_groups`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import t as students_t

Z = 1.959964  # two-sided 95% quantile of the normal law
T = 2.12  # the same of Student's law with 16 degrees of freedom
DEALS = 16  # times that `by_groups` deals both sets out, in `GROUPS` groups
GROUPS = 3
HALVINGS = 8  # times that `without_bias` deals the samples out into halves


class Estimate(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


def too_few(*counts: tuple[str, int, int]) -> str:
    """Why an estimate is left out: "12 samples are needed, and there are 5"; '' if it is not.

    Of `counts` (of what, how many there are, from how many it is defined with its interval), of
    which the same may be given twice.
    """
    short = {(what, there): least for what, there, least in sorted(counts) if there < least}
    needs = " and ".join(f"{least:,} {what}" for (what, _), least in short.items())
    has = " and ".join(f"{there:,}" for _, there in short)
    return f"{needs} are needed, and there are {has}" if short else ""


def quantile(num: int) -> float:
    """Two-sided 95% quantile of Student's law where `num` rows, two or more, tell the variance."""
    return float(students_t.ppf(0.975, num - 1))


def normal(value: float, variance: float, num: int) -> Estimate:
    """The value -+ 1.96 standard deviations, and more of them where few rows tell the variance."""
    half = quantile(num) * float(np.sqrt(variance))
    return Estimate(value, value - half, value + half)


def variance_of_mean(values: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Variance of the mean of `values` `[N]` of independent rows.

    Of a metric's influence function it is the variance of the metric (the infinitesimal jackknife:
    Efron 1982, chapter 6). It is too large, up to twofold, for a metric whose first derivative
    vanishes, as a distance does where the samples follow the very law of the reference set.

    With `strata`, int `[N]`, the number of rows of each kind was fixed beforehand, as that of each
    class is: only the variance within kinds counts. Kinds of one row are one kind.
    """
    kinds = _pooled(len(values), strata)
    total = 0.0
    for kind in np.unique(kinds):
        rows = values[kinds == kind]
        if len(rows) > 1:
            total += len(rows) * float(np.var(rows, ddof=1))
    return total / len(values) ** 2


def mean(values: np.ndarray) -> Estimate:
    """Of independent values `[N]`."""
    return normal(float(values.mean()), variance_of_mean(values), len(values))


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    data: np.ndarray,
    repeats: int,
    strata: np.ndarray | None = None,
) -> Estimate:
    """A statistic of the rows of `data` `[N, ...]`, as a mean or a quantile of them is.

    The interval is `normal`, of the variance over `repeats` resamplings. A resample
    repeats rows: this is not for distances between sets nor for nearest neighbours within one. With
    `strata`, as for `variance_of_mean`, rows are drawn again within their kind.
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
    """Wilson's score interval (1927) of a probability, where `share` of `num` trials were hits."""
    centre = (share + Z**2 / (2 * num)) / (1 + Z**2 / num)
    half = Z / (1 + Z**2 / num) * np.sqrt(share * (1 - share) / num + Z**2 / (4 * num**2))
    # The share lies within, but for rounding where it is 0 or 1.
    return Estimate(
        share, float(np.clip(centre - half, 0, share)), float(np.clip(centre + half, share, 1))
    )


def share(value: float, variance: float, num: int) -> Estimate:
    """Wilson's interval of a share that has another variance than independent trials give it.

    It is that of as many independent trials as would have this variance; of `num` where the share
    is 0 or 1 and no variance was seen.
    """
    effective = value * (1 - value) / variance if variance > 0 else 0.0
    return wilson(value, effective or num)


def by_groups(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    num: int,
    num_reference: int,
    strata: np.ndarray | None = None,
) -> float:
    """Variance of a statistic of both sets over draws of both, where a neighbourhood decides.

    Recall and coverage are no sums over samples, and a resample, in which rows come twice, has
    other nearest neighbours than a draw. But both sets can be dealt out into groups: they are
    independent draws, of a third of the size in both sets alike, and the variance of a statistic to
    which each place contributes by its neighbourhood alone falls as one over the number of rows
    (Penrose & Yukich 2001). So it is the variance between groups over their number, averaged over
    several deals. That is known to about a third of itself, as from 16 degrees of freedom, for
    which it is widened.

    The statistic is of the numbers of some of `num` samples and of some of `num_reference`
    reference images; every group gets its share of each kind of samples (`strata`, as for
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

    It is one of the numbers of some samples, and has `value` with a `variance` for all `num`. The
    line through its value from all samples and its mean over halves of them, over `1 / N`, is read
    at 0 (Chong & Forsyth 2020, who draw it through 15 sizes; two lie nearest to 0, where the bias
    is straightest). The interval is that of the value in the limit; the random choice of the
    halves, each with its share of every kind (`strata`), adds to the variance.
    """
    rng, means = np.random.default_rng(0), []
    for _ in range(HALVINGS):
        first, second = map(statistic, _deal(num, strata, 2, rng))
        means.append((first + second) / 2)
    limit = 2 * value - float(np.mean(means))
    return normal(limit, variance + float(np.var(means, ddof=1)) / HALVINGS, num)


def _pooled(num: int, strata: np.ndarray | None) -> np.ndarray:
    """The kind of each row, where those that have a kind to themselves are of one.

    A single such row, of which nothing tells a variance, is of the smallest of the other kinds.
    """
    kinds, counts = np.unique(_kinds(num, strata), return_inverse=True, return_counts=True)[1:]
    alone = counts[kinds] == 1
    if alone.sum() == 1 and len(counts) > 1:
        alone |= kinds == np.argsort(counts, kind="stable")[1]
    pooled: np.ndarray = np.where(alone, len(counts), kinds)
    return pooled


def _kinds(num: int, strata: np.ndarray | None) -> np.ndarray:
    """The kind of each row, one for all without `strata`."""
    return np.zeros(num, int) if strata is None else strata


def _deal(
    num: int, strata: np.ndarray | None, groups: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The numbers below `num` at random in groups, each with its share of every kind."""
    order = rng.permutation(num)
    order = order[np.argsort(_kinds(num, strata)[order], kind="stable")]
    return [order[group::groups] for group in range(groups)]
