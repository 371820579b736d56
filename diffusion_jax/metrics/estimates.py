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


class Reference(NamedTuple):
    """A reference set as the metrics see it, prepared once."""

    moments: Moments  # of all its features
    features: np.ndarray  # of at most `MOST` of its images, float32 `[M, D]`
    kernel_mean: float  # mean kernel of those
    manifold: np.ndarray  # their radii for precision `[M]`
    density: np.ndarray  # their radii for density and coverage `[M]`


def prepare(
    all_moments: Moments, features: np.ndarray, labels: np.ndarray | None = None
) -> Reference:
    """A reference set with these moments and, of some of its images, features `[M, D]`.

    `labels` `[M]`, where samples are asked for in their proportions.
    """
    manifold, density = (radii(features, k) for k in (MANIFOLD_K, DENSITY_K))
    return Reference(all_moments, features, mean_kernel(features, labels), manifold, density)


def some(num: int) -> np.ndarray:
    """At most `MOST` of the numbers below `num`, at random but always the same, ascending.

    Not the first: sets are often ordered by class.
    """
    if num <= MOST:
        return np.arange(num)
    return np.sort(np.random.default_rng(0).permutation(num)[:MOST])


def moment_estimates(
    features: np.ndarray, labels: np.ndarray | None, reference: Moments
) -> dict[str, Estimate]:
    """`frechet` and `frechet_infinite` of features `[N, D]` with labels `[N]`."""
    root = square_root(reference.covariance)
    found, limit = _with_limit(
        lambda rows: frechet_distance(moments(features[rows]), reference, root),
        frechet_influence(features, reference, root),
        labels,
    )
    return {"frechet": _not_below_zero(found), "frechet_infinite": limit}


def class_estimates(logits: np.ndarray, labels: np.ndarray | None) -> dict[str, Estimate]:
    """`inception_score`, its `_infinite` and, where labels were asked for, `accuracy`.

    Of logits `[N, K]` and labels `[N]`.
    """
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    score, limit = _with_limit(
        lambda rows: inception_score(log_p[rows]), inception_influence(log_p), labels
    )
    accuracy = {} if labels is None else {"accuracy": _share(logits.argmax(1) == labels, labels)}
    return {**accuracy, "inception_score": score, "inception_score_infinite": limit}


def set_estimates(
    features: np.ndarray, labels: np.ndarray | None, reference: Reference
) -> dict[str, Estimate]:
    """What needs the features of both sets, but for `variety_estimates`.

    Of samples `[N, D]`, `N` at most `MOST`.
    """
    real = reference.features
    square, influence = sliced_wasserstein(features, real)
    distance = _not_below_zero(normal(square, variance_of_mean(influence, labels)))
    kernel = kernel_distance(features, real, reference.kernel_mean, labels)
    precise = balls_around(features, real, reference.manifold) > 0
    dense = balls_around(features, real, reference.density) / DENSITY_K

    return {
        "kernel": normal(*kernel),
        "sliced_wasserstein": Estimate(*np.sqrt(distance).tolist()),
        "precision": _share(precise, labels),
        "density": normal(float(dense.mean()), variance_of_mean(dense, labels)),
    }


def variety_estimates(
    features: np.ndarray, labels: np.ndarray | None, reference: Reference
) -> dict[str, Estimate]:
    """`recall` and `coverage`, of samples as for `set_estimates`."""
    real, n = reference.features, len(features)

    def recall(rows: Any, real_rows: Any) -> float:
        own = features[rows]
        return float((balls_around(real[real_rows], own, radii(own, MANIFOLD_K)) > 0).mean())

    def coverage(rows: Any, real_rows: Any) -> float:
        own = real[real_rows]
        return float(reached(features[rows], own, radii(own, DENSITY_K)).mean())

    reach = float(reached(features, real, reference.density).mean())
    sizes = n, len(real)
    return {
        "recall": share(recall(ALL, ALL), by_groups(recall, *sizes, labels), n),
        "coverage": share(reach, by_groups(coverage, *sizes, labels), n),
    }


def _with_limit(
    statistic: Callable[[Any], float], influence: np.ndarray, labels: np.ndarray | None
) -> tuple[Estimate, Estimate]:
    """A statistic of some rows for all of them, and for infinitely many."""
    value, variance = statistic(ALL), variance_of_mean(influence, labels)
    limit = without_bias(statistic, value, variance, len(influence), labels)
    return normal(value, variance), limit


def _share(hits: np.ndarray, labels: np.ndarray | None) -> Estimate:
    """Of true values in bool `[N]`."""
    return share(float(hits.mean()), variance_of_mean(hits, labels), len(hits))


def _not_below_zero(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value, max(estimate.low, 0.0), estimate.high)
