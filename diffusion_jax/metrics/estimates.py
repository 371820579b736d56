"""Every metric of samples in the features of an extractor, with its 95% interval.

What each interval is of, for samples of one model with the labels that were asked for:

- `frechet`, `sliced_wasserstein`, `inception_score`: the expected value at this `N`, bias included
  (of the sliced Wasserstein distance the root of the expected square); `_infinite`: the value at
  infinitely many samples. `kernel` has no bias, at any `N` it is of the same value.
- `accuracy`, `precision`, `density`: the same; they are means over samples.
- `recall`, `coverage`: the expected value at these numbers of samples and of reference images, over
  draws of both.

But for the last line the reference images are given: the intervals are what two models measured
against the same images are compared by, and do not say how far these images are from others.

Each is defined, with its interval, from the numbers of samples and of reference images in `LEAST`;
below them there is None in its place.
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

MOST = 10_000  # rows of each set that metrics of pairs of rows look at
MANIFOLD_K, DENSITY_K = 3, 5
"""Neighbours of precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem)."""
ALL = slice(None)  # of all rows
PER_FEATURE = 4  # samples for each feature from which the bias of the Frechet distance is c / N
LEAST = {
    **{"frechet": (4, 2), "frechet_infinite": (4, 2)},  # a covariance needs two rows, in halves too
    **dict.fromkeys(("accuracy", "inception_score", "inception_score_infinite"), (2, 0)),
    **{"kernel": (2, 2), "sliced_wasserstein": (2, 1)},
    # A ball reaches to the k-th nearest other row, in each of the groups of `by_groups` too.
    **{"precision": (2, MANIFOLD_K + 1), "density": (2, DENSITY_K + 1)},
    "recall": (GROUPS * (MANIFOLD_K + 1), GROUPS),
    "coverage": (GROUPS, GROUPS * (DENSITY_K + 1)),
}
"""From how many samples, and how many reference images, each is defined; see `least`."""

Found = dict[str, Estimate | None]


class Reference(NamedTuple):
    """A reference set as the metrics see it, prepared once."""

    features: np.ndarray  # of at most `MOST` images, float32 `[M, D]`
    kernel_mean: float  # mean kernel of those, 0 where they are too few
    manifold: np.ndarray  # their radii for precision `[M]`, 0 where they are too few
    density: np.ndarray  # their radii for density and coverage `[M]`, likewise


def prepare(features: np.ndarray, labels: np.ndarray | None = None) -> Reference:
    """A reference set of some images with features `[M, D]`.

    `labels` `[M]`, where samples are asked for in their proportions.
    """
    num = len(features)
    manifold, density = (
        radii(features, k) if num > k else np.zeros(num) for k in (MANIFOLD_K, DENSITY_K)
    )
    kernel_mean = mean_kernel(features, labels) if num > 1 else 0.0
    return Reference(features, kernel_mean, manifold, density)


def some(num: int) -> np.ndarray:
    """At most `MOST` of the numbers below `num`, at random but always the same, ascending.

    Not the first: sets are often ordered by class.
    """
    if num <= MOST:
        return np.arange(num)
    return np.sort(np.random.default_rng(0).permutation(num)[:MOST])


def moment_estimates(
    features: np.ndarray, labels: np.ndarray | None, reference: Moments | None
) -> Found:
    """`frechet` and `frechet_infinite` of features `[N, D]` with labels `[N]`.

    The reference is None for a single image, which has no covariance.
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
    """`inception_score`, its `_infinite` and, where labels were asked for, `accuracy`.

    Of logits `[N, K]` and labels `[N]`.
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
    """What needs the features of both sets, but for `variety_estimates`.

    Of samples `[N, D]`, `N` at most `MOST`.
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
    """`recall` and `coverage`, of samples as for `set_estimates`."""
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
    """`LEAST` in so many features.

    A bias that is not yet `c / N` is not extrapolated to infinity: of fewer samples than
    `PER_FEATURE` to a feature the result lies far off its interval, and below 0.
    """
    num, num_reference = LEAST[name]
    if name == "frechet_infinite":
        num = max(num, PER_FEATURE * num_features)
    return num, num_reference


def _enough(name: str, num: int, num_reference: float = np.inf) -> bool:
    """Whether an estimate is defined."""
    return num >= LEAST[name][0] and num_reference >= LEAST[name][1]


def _where_defined(sizes: tuple[int, int], **estimates: Callable[[], Estimate]) -> Found:
    """Estimates, None for those that are not defined from so many samples and reference images."""
    return {name: made() if _enough(name, *sizes) else None for name, made in estimates.items()}


def _with_limit(
    statistic: Callable[[Any], float], influence: np.ndarray, labels: np.ndarray | None
) -> tuple[Estimate, Estimate]:
    """A statistic of some rows for all of them, and for infinitely many."""
    value, variance = statistic(ALL), variance_of_mean(influence, labels)
    limit = without_bias(statistic, value, variance, len(influence), labels)
    return normal(value, variance, len(influence)), limit


def _share(hits: np.ndarray, labels: np.ndarray | None) -> Estimate:
    """Of true values in bool `[N]`."""
    return share(float(hits.mean()), variance_of_mean(hits, labels), len(hits))


def _not_below_zero(estimate: Estimate) -> Estimate:
    """Of a distance, whose value may be below 0 by rounding."""
    return Estimate(*(max(end, 0.0) for end in estimate))
