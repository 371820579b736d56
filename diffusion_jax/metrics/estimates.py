"""Metrics of samples in the features of an extractor, with 95% intervals.

The intervals, for samples of one model with the requested labels, cover:

- `frechet`, `sliced_wasserstein`, `inception_score`: the expected value at this `N`, including bias
  (for the sliced Wasserstein distance, the root of the expected square); `_infinite`: the value at
  infinitely many samples. `kernel` is unbiased: its expected value does not depend on `N`.
- `accuracy`, `precision`, `density`: the expected value; they are means over samples.
- `recall`, `coverage`: the expected value at these numbers of samples and of reference images, over
  draws of both.

In all but the last case the reference images are fixed: the intervals serve to compare models that
are measured against the same images, not to compare these images with others.

`LEAST` has the numbers of samples and of reference images from which each metric and its interval
are defined; below them the result is None.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from diffusion_jax.metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_influence,
    moments,
    square_root,
)
from diffusion_jax.metrics.inception import inception_influence, inception_score
from diffusion_jax.metrics.intervals import (
    GROUPS,
    Estimate,
    by_groups,
    normal,
    share,
    variance_of_mean,
    without_bias,
)
from diffusion_jax.metrics.kernel import kernel_distance, mean_kernel
from diffusion_jax.metrics.neighbours import balls_around, radii, reached
from diffusion_jax.metrics.sliced import sliced_wasserstein

MOST = 10_000  # largest number of rows of each set for metrics of pairs of rows
MANIFOLD_K, DENSITY_K = 3, 5
"""Neighbours of precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem)."""
ALL = slice(None)  # all rows
PER_FEATURE = 4  # samples per feature from which the bias of the Frechet distance is c / N
LEAST = {
    **{"frechet": (4, 2), "frechet_infinite": (4, 2)},  # a covariance needs two rows, halves too
    **dict.fromkeys(("accuracy", "inception_score", "inception_score_infinite"), (2, 0)),
    **{"kernel": (2, 2), "sliced_wasserstein": (2, 1)},
    # Balls reach to the k-th nearest other row, also within each of the groups of `by_groups`.
    **{"precision": (2, MANIFOLD_K + 1), "density": (2, DENSITY_K + 1)},
    "recall": (GROUPS * (MANIFOLD_K + 1), GROUPS),
    "coverage": (GROUPS, GROUPS * (DENSITY_K + 1)),
}
"""Minimum numbers of samples and of reference images of each metric; see `least`."""

Found = dict[str, Estimate | None]


class Reference(NamedTuple):
    """A reference set, prepared once for all metrics."""

    features: np.ndarray  # of at most `MOST` images, float32 `[M, D]`
    kernel_mean: float  # their mean kernel, 0 if there are too few
    manifold: np.ndarray  # radii for precision `[M]`, 0 if there are too few
    density: np.ndarray  # radii for density and coverage `[M]`, 0 if there are too few


def prepare(features: np.ndarray, labels: np.ndarray | None = None) -> Reference:
    """Prepares a reference set with features `[M, D]`.

    `labels` `[M]` are given if samples have labels in the same proportions.
    """
    num = len(features)
    manifold, density = (
        radii(features, k) if num > k else np.zeros(num) for k in (MANIFOLD_K, DENSITY_K)
    )
    kernel_mean = mean_kernel(features, labels) if num > 1 else 0.0
    return Reference(features, kernel_mean, manifold, density)


def some(num: int) -> np.ndarray:
    """At most `MOST` of the numbers below `num`, chosen at random with a fixed seed, ascending.

    Not the first ones, as sets are often ordered by class.
    """
    if num <= MOST:
        return np.arange(num)
    return np.sort(np.random.default_rng(0).permutation(num)[:MOST])


def moment_estimates(
    features: np.ndarray, labels: np.ndarray | None, reference: Moments | None
) -> Found:
    """`frechet` and `frechet_infinite` of features `[N, D]` with labels `[N]`.

    `reference` is None for a single image, which has no covariance.
    """
    if reference is None or not _enough("frechet", len(features)):
        return dict.fromkeys(("frechet", "frechet_infinite"))
    root = square_root(reference.covariance)
    found, limit = _with_limit(
        lambda rows: frechet_distance(moments(features[rows]), reference, root),
        frechet_influence(features, reference, root),
        labels,
    )
    straight = len(features) >= least("frechet_infinite", features.shape[1])[0]
    return {"frechet": _not_below_zero(found), "frechet_infinite": limit if straight else None}


def class_estimates(logits: np.ndarray, labels: np.ndarray | None) -> Found:
    """`inception_score`, its `_infinite` and, if there are labels, `accuracy`.

    From logits `[N, K]` and labels `[N]`.
    """
    names = ("accuracy",) * (labels is not None) + ("inception_score", "inception_score_infinite")
    if not _enough("inception_score", len(logits)):
        return dict.fromkeys(names)
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    score, limit = _with_limit(
        lambda rows: inception_score(log_p[rows]), inception_influence(log_p), labels
    )
    accuracy = [] if labels is None else [_share(logits.argmax(1) == labels, labels)]
    return dict(zip(names, [*accuracy, score, limit], strict=True))


def set_estimates(features: np.ndarray, labels: np.ndarray | None, reference: Reference) -> Found:
    """Metrics of the features of both sets, except `variety_estimates`.

    From samples `[N, D]`, `N` at most `MOST`.
    """
    real, num = reference.features, len(features)

    def sliced() -> Estimate:
        square, influence = sliced_wasserstein(features, real)
        distance = _not_below_zero(normal(square, variance_of_mean(influence, labels), num))
        return Estimate(*np.sqrt(distance).tolist())

    def density() -> Estimate:
        dense = balls_around(features, real, reference.density) / DENSITY_K
        return normal(float(dense.mean()), variance_of_mean(dense, labels), num)

    return _where_defined(
        (num, len(real)),
        kernel=lambda: normal(*kernel_distance(features, real, reference.kernel_mean, labels), num),
        sliced_wasserstein=sliced,
        precision=lambda: _share(balls_around(features, real, reference.manifold) > 0, labels),
        density=density,
    )


def variety_estimates(
    features: np.ndarray, labels: np.ndarray | None, reference: Reference
) -> Found:
    """`recall` and `coverage`, from samples as for `set_estimates`."""
    real, n = reference.features, len(features)
    sizes = n, len(real)

    def recall(rows: Any, real_rows: Any) -> float:
        own = features[rows]
        return float((balls_around(real[real_rows], own, radii(own, MANIFOLD_K)) > 0).mean())

    def coverage(rows: Any, real_rows: Any) -> float:
        own = real[real_rows]
        return float(reached(features[rows], own, radii(own, DENSITY_K)).mean())

    def whole_coverage() -> Estimate:
        reach = float(reached(features, real, reference.density).mean())
        return share(reach, by_groups(coverage, *sizes, labels), n)

    return _where_defined(
        sizes,
        recall=lambda: share(recall(ALL, ALL), by_groups(recall, *sizes, labels), n),
        coverage=whole_coverage,
    )


def least(name: str, num_features: int) -> tuple[int, int]:
    """`LEAST` for a number of features.

    Extrapolation to infinity needs a bias that is `c / N`: with fewer than `PER_FEATURE` samples
    per feature the result would be far outside of its interval, and below 0.
    """
    num, num_reference = LEAST[name]
    if name == "frechet_infinite":
        num = max(num, PER_FEATURE * num_features)
    return num, num_reference


def _enough(name: str, num: int, num_reference: float = np.inf) -> bool:
    """Whether an estimate is defined."""
    return num >= LEAST[name][0] and num_reference >= LEAST[name][1]


def _where_defined(sizes: tuple[int, int], **estimates: Callable[[], Estimate]) -> Found:
    """Estimates, or None where there are too few samples or reference images."""
    return {name: made() if _enough(name, *sizes) else None for name, made in estimates.items()}


def _with_limit(
    statistic: Callable[[Any], float], influence: np.ndarray, labels: np.ndarray | None
) -> tuple[Estimate, Estimate]:
    """Estimates of a statistic of some rows: for all rows, and for infinitely many."""
    value, variance = statistic(ALL), variance_of_mean(influence, labels)
    limit = without_bias(statistic, value, variance, len(influence), labels)
    return normal(value, variance, len(influence)), limit


def _share(hits: np.ndarray, labels: np.ndarray | None) -> Estimate:
    """The share of true values in bool `[N]`."""
    return share(float(hits.mean()), variance_of_mean(hits, labels), len(hits))


def _not_below_zero(estimate: Estimate) -> Estimate:
    """A distance, clipped at 0, below which it may be by rounding."""
    return Estimate(*(max(end, 0.0) for end in estimate))
