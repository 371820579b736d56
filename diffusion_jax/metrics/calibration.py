"""Whether samples given an observation have the spread that the truth has.

If the truth and K samples are draws of one posterior, the truth's rank among them is uniform, from
0 to K, in every feature and whatever the posterior is (simulation-based calibration, Talts et al.
2018). Ranks of several features of one truth depend on each other, and so all p-values and
intervals here count truths, `[N]`, and not features.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from diffusion_jax.metrics.intervals import Estimate, bootstrap, mean, share, variance_of_mean

REPEATS = 400  # resamples for the interval of `spread`
TINY = 1e-12  # least variance


def ranks(truth: np.ndarray, samples: np.ndarray, seed: int = 0) -> np.ndarray:
    """Number of samples below the truth: int `[N, F]` for `[N, F]` and `[N, K, F]`.

    Among samples that equal the truth its place is drawn, from `seed`.
    """
    below = (samples < truth[:, None]).sum(1)
    ties = (samples == truth[:, None]).sum(1)
    return np.asarray(below + np.random.default_rng(seed).integers(0, ties + 1))


def histogram(ranks: np.ndarray, num_samples: int, bins: int) -> np.ndarray:
    """Shares of each truth's ranks `[N, F]` in equal bins: `[N, bins]`.

    Raises:
        ValueError: the number of ranks, `num_samples + 1`, is not a multiple of that of bins.
    """
    if (num_samples + 1) % bins:
        raise ValueError(f"bins={bins} must divide the number of ranks, {num_samples + 1}")
    of_each = ranks * bins // (num_samples + 1)
    return np.asarray((of_each[..., None] == np.arange(bins)).mean(1))


def uniformity(ranks: np.ndarray, num_samples: int, bins: int = 10) -> float:
    """P-value of uniform ranks `[N, F]`, of N >= 2 truths among `num_samples` each.

    Pearson's chi-square of the histogram over all features, whose law under dependence is a sum of
    chi-squares weighted by the eigenvalues of `bins Cov[shares of a truth]`. Their sum and the sum
    of their squares set the scale and the degrees of freedom of a single one (Rao & Scott 1984).
    With one feature it is Pearson's test.
    """
    num = len(ranks)
    off = histogram(ranks, num_samples, bins) - 1 / bins
    square = num * bins * np.sum(off.mean(0) ** 2)
    own = np.sum(off**2, axis=1)
    total = bins * own.mean()
    # Of products of different truths, as one alone has a square in every direction: without bias.
    products = np.sum((off.T @ off) ** 2) - np.sum(own**2)
    squares = bins**2 * products / (num * (num - 1))
    squares = max(squares, total**2 / (bins - 1))  # as many equal ones have
    return float(stats.chi2.sf(square * total / squares, total**2 / squares))


def coverage(ranks: np.ndarray, num_samples: int, level: float) -> Estimate:
    """How often the truth lies in the central interval that holds a share `level` of all ranks.

    The interval is Wilson's, for as many independent trials as N truths with F dependent features
    are worth.

    Raises:
        ValueError: no central interval holds that share of `num_samples + 1` ranks.
    """
    outside = (num_samples + 1) * (1 - level) / 2
    if abs(outside - round(outside)) > 1e-9:
        raise ValueError(
            f"level={level} must leave a whole number of the {num_samples + 1} ranks on either side"
        )
    least = round(outside)
    inside = ((ranks >= least) & (ranks <= num_samples - least)).mean(1)
    return share(float(inside.mean()), variance_of_mean(inside), len(ranks))


def spread(truth: np.ndarray, samples: np.ndarray) -> Estimate:
    """Standard deviation of the samples over that of the truth around their mean; exact: 1.

    Below 1 samples are too narrow, or off the truth. Variances are summed over features, `[N, F]`
    and `[N, K, F]`, and those of the K samples' mean are taken off, so that no number of samples
    biases it. The interval is symmetric in the logarithm.
    """
    variance = samples.var(1, ddof=1).sum(1)
    error = ((truth - samples.mean(1)) ** 2).sum(1) - variance / samples.shape[1]

    def log_ratio(rows: np.ndarray) -> float:
        own, around = np.maximum(rows.mean(0), TINY)
        return float(np.log(own / around) / 2)

    found = bootstrap(log_ratio, np.stack([variance, error], axis=1), REPEATS)
    return Estimate(*np.exp(found).tolist())


class MeanLine(NamedTuple):
    """Squared errors of means of samples; exact ones have `error[k - 1] = (1 + 1 / k) error_inf`.

    With the posterior mean as mean of infinitely many samples, `error_inf` is the least possible
    error (MMSE), and one sample has twice as much, 3.01 dB.
    """

    error: list[Estimate]  # of the mean of 1, 2, ... K samples
    limit: Estimate  # of infinitely many
    left: Estimate  # 10 log10 (error of one sample / (2 limit)) in dB; 0 on the line


def mean_line(truth: np.ndarray, samples: np.ndarray) -> MeanLine:
    """Errors per feature of means of samples, `[N, F]` and `[N, K, F]`, with K of at least 2.

    For `k` of the K samples it is the mean over all choices of `k`: with the variance `v` of the
    samples and `a = |truth - mean|^2 - v / K` it is `a + v / k`, without bias. Samples that spread
    too little have `left` below 0, and too much above it; a mean that is off has `left` below 0,
    too, and a higher `limit`. Intervals are over truths.
    """
    num = samples.shape[1]
    variance = samples.var(1, ddof=1).mean(1)
    limit = ((truth - samples.mean(1)) ** 2).mean(1) - variance / num

    def left(rows: np.ndarray) -> float:
        own, around = np.maximum(rows.mean(0), TINY)
        return float(10 * np.log10((around + own) / (2 * around)))

    return MeanLine(
        [mean(limit + variance / k) for k in range(1, num + 1)],
        mean(limit),
        bootstrap(left, np.stack([variance, limit], axis=1), REPEATS),
    )
