"""Kernel distance (KID): squared maximum mean discrepancy with a cubic polynomial kernel."""

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
    """Mean of `kernel` over pairs of different rows of `x` `[N, D]`.

    With `strata`, as for `kernel_distance`, of a distribution with these proportions of kinds.
    """
    members, blocks = _members(len(x), strata), 0.0
    for start in range(0, len(x), CHUNK):
        k = kernel(x[start : start + CHUNK], x)
        k[np.arange(len(k)), start + np.arange(len(k))] = 0
        blocks = blocks + members[start : start + CHUNK].T @ (k @ members)
    return _mean_of_pairs(np.asarray(blocks), members.sum(0))


def _members(num: int, strata: np.ndarray | None) -> np.ndarray:
    """One-hot kind of each row, float64 `[N, kinds]`; a single kind if one has a single row."""
    kinds = np.zeros(num, int) if strata is None else np.unique(strata, return_inverse=True)[1]
    members: np.ndarray = np.eye(len(np.unique(kinds)))[kinds]
    return members if members.sum(0).min() > 1 else np.ones((num, 1))


def _mean_of_pairs(blocks: np.ndarray, counts: np.ndarray) -> float:
    """Mean over pairs, weighted by the kinds' shares, from sums over pairs of different rows.

    With numbers of rows fixed in advance (`counts`), pairs of one kind are underrepresented, which
    would change the mean by one over the number of rows.
    """
    squares = np.outer(counts, counts)
    return float((blocks * squares / (squares - np.diag(counts))).sum() / counts.sum() ** 2)


def kernel_distance(
    features: np.ndarray,
    reference: np.ndarray,
    reference_mean: float,
    strata: np.ndarray | None = None,
) -> tuple[float, float]:
    """Unbiased estimate of the squared discrepancy, and its variance.

    Of samples `[N, D]` from a reference set `[M, D]` with the given `mean_kernel`. With `g(x)` the
    mean of the kernel of `x` over the reference set, it is the mean over pairs of samples of
    `h(x, y) = k(x, y) - g(x) - g(y)` plus the mean kernel of the reference set (Eq. 4, Binkowski et
    al. 2018). The variance is that of this U-statistic for a fixed reference set: four times the
    variance of the row means of `h` over `N`, minus the variance of the part of `h` that row means
    do not explain, which its expectation contains twice.
    With `strata`, int `[N]`, the number of rows of each kind was fixed in advance: every pair of
    kinds is weighted by its share. None gives the published estimate.
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
    # Residual of h after subtracting row and column means within each pair of kinds.
    left = squares - 2 * (sums**2 / counts).sum() + (blocks**2 / np.outer(counts, counts)).sum()
    rest = 2 * max(left, 0.0) / (n * (n - 1)) ** 2
    return value, float(max(by_means - rest, rest))
