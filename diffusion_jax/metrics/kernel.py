"""Kernel distance (KID): the squared maximum mean discrepancy under a cubic polynomial kernel."""

import numpy as np

from diffusion_jax.metrics.intervals import variance_of_mean

CHUNK = 1024


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(x . y / D + 1)^3` of features `[N, D]` and `[M, D]`: `[N, M]` (Binkowski et al. 2018)."""
    product = np.asarray(x, np.float64) @ np.asarray(y, np.float64).T
    product /= x.shape[1]
    product += 1
    return product * product * product  # much faster than a power


def mean_kernel(x: np.ndarray, strata: np.ndarray | None = None) -> float:
    """The mean of `kernel` over pairs of two different rows of `x` `[N, D]`.

    With `strata`, as for `kernel_distance`, of a law with these proportions of kinds.
    """
    members, blocks = _members(len(x), strata), 0.0
    for start in range(0, len(x), CHUNK):
        k = kernel(x[start : start + CHUNK], x)
        k[np.arange(len(k)), start + np.arange(len(k))] = 0
        blocks = blocks + members[start : start + CHUNK].T @ (k @ members)
    return _mean_of_pairs(np.asarray(blocks), members.sum(0))


def _members(num: int, strata: np.ndarray | None) -> np.ndarray:
    """Which kind each row is of, float64 `[N, kinds]`; one kind, where one has a single row."""
    kinds = np.zeros(num, int) if strata is None else np.unique(strata, return_inverse=True)[1]
    members: np.ndarray = np.eye(len(np.unique(kinds)))[kinds]
    return members if members.sum(0).min() > 1 else np.ones((num, 1))


def _mean_of_pairs(blocks: np.ndarray, counts: np.ndarray) -> float:
    """Mean over pairs in which each kind has its share, of sums over pairs of different rows.

    Of `counts` rows fixed beforehand too few pairs are of one kind, which alone would make the mean
    differ by one over their number.
    """
    squares = np.outer(counts, counts)
    return float((blocks * squares / (squares - np.diag(counts))).sum() / counts.sum() ** 2)


def kernel_distance(
    features: np.ndarray,
    reference: np.ndarray,
    reference_mean: float,
    strata: np.ndarray | None = None,
) -> tuple[float, float]:
    """The unbiased estimate of the squared discrepancy from all rows, and its variance.

    Of samples `[N, D]` from a reference set `[M, D]`, whose `mean_kernel` is given. With `g(x)` the
    mean of the kernel of `x` over the reference set, it is the mean over pairs of two samples of
    `h(x, y) = k(x, y) - g(x) - g(y)` plus the mean kernel of the reference set (Eq. 4, Binkowski et
    al. 2018). The variance is that of this U-statistic of the samples, the reference set as given:
    four times the variance of the rows' means of `h` over `N`, in whose expectation the part of `h`
    that no row's mean explains is contained twice and counts once.

    With `strata`, int `[N]`, the number of rows of each kind was fixed beforehand: every pair of
    kinds then counts with its share. None gives the published estimate.
    """
    n, starts = len(features), range(0, len(features), CHUNK)
    to_reference = np.concatenate(
        [kernel(features[s : s + CHUNK], reference).mean(1) for s in starts]
    )
    members = _members(n, strata)
    sums, squares = np.empty_like(members), 0.0
    for s in starts:
        h = kernel(features[s : s + CHUNK], features)
        h -= to_reference[s : s + CHUNK, None] + to_reference
        rows = np.arange(len(h))
        h[rows, s + rows] = 0
        sums[s : s + CHUNK] = h @ members
        squares += float(np.vdot(h, h))
    counts, blocks = members.sum(0), members.T @ sums
    value = _mean_of_pairs(blocks, counts) + reference_mean
    by_means = variance_of_mean(2 * sums.sum(1) / (n - 1), strata)
    # What the means over rows and columns, within each pair of kinds, leave of h.
    left = squares - 2 * (sums**2 / counts).sum() + (blocks**2 / np.outer(counts, counts)).sum()
    rest = 2 * max(left, 0.0) / (n * (n - 1)) ** 2
    return value, float(max(by_means - rest, rest))
