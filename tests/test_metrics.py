"""Metrics against closed forms, published values and brute force."""

import numpy as np
import pytest
import scipy.linalg

from diffusion_jax.metrics.frechet import Moments, frechet_distance, moments
from diffusion_jax.metrics.intervals import bootstrap, wilson
from diffusion_jax.metrics.neighbours import covered, nearest_distances


def random_moments(rng: np.random.Generator, dim: int = 6) -> Moments:
    root = rng.normal(size=(dim, dim))
    return Moments(rng.normal(size=dim), root @ root.T)


def test_frechet_distance_of_normal_laws() -> None:
    rng = np.random.default_rng(0)
    a, b = random_moments(rng), random_moments(rng)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    # Commuting covariances: |shift|^2 + sum (sqrt s - sqrt r)^2.
    a = Moments(np.zeros(2), np.diag([4.0, 9.0]))
    b = Moments(np.array([1.0, 2.0]), np.diag([1.0, 0.0]))
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 9)


def test_moments_are_the_unbiased_ones() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found = moments(x)
    np.testing.assert_allclose(found.mean, x.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64).T), rtol=1e-9)


def test_neighbours_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(700, 4)), 0.5 * rng.normal(size=(600, 4)) + 1
    pairs = np.linalg.norm(fake[:, None] - real[None], axis=-1)
    np.testing.assert_allclose(nearest_distances(fake, real), pairs.min(1), rtol=1e-3)
    np.testing.assert_allclose(nearest_distances(fake, real, 3), np.sort(pairs, 1)[:, 2], rtol=1e-3)
    own = np.linalg.norm(real[:, None] - real[None], axis=-1)
    radii = np.sort(own, 1)[:, 3]  # the point itself comes first
    expected = (pairs <= radii).any(1)
    assert 0.1 < expected.mean() < 0.99
    assert (covered(fake, real) == expected).mean() > 0.99  # rounding at the rim


def test_precision_and_recall_tell_their_failures_apart() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(500, 2))
    narrow, wide = 0.2 * rng.normal(size=(500, 2)), 5 * rng.normal(size=(500, 2))
    assert covered(narrow, real).mean() > 0.95  # precision: looks real
    assert covered(real, narrow).mean() < 0.3  # recall: covers little
    assert covered(wide, real).mean() < 0.3
    assert covered(real, wide).mean() > 0.9


def test_wilson_interval_of_newcombe_1998() -> None:
    """Newcombe 1998, Table I, method 3: 81 of 263 and 0 of 20."""
    p, low, high = wilson(81 / 263, 263)
    assert (round(p, 4), round(low, 4), round(high, 4)) == (0.3080, 0.2553, 0.3662)
    p, low, high = wilson(0.0, 20)
    assert (p, round(low, 4), round(high, 4)) == (0, 0, 0.1611)


def test_bootstrap_of_a_mean_has_its_standard_error() -> None:
    x = np.random.default_rng(1).normal(size=400)
    value, low, high = bootstrap(lambda d: float(d.mean()), x, repeats=2000)
    assert value == x.mean()
    assert (high + low) / 2 == pytest.approx(value)
    assert (high - low) / 2 == pytest.approx(1.96 * x.std(ddof=1) / 20, rel=0.06)
    # Between two fixed halves far apart nothing varies; within them each has its own error.
    halves = np.arange(400) % 2
    value, low, high = bootstrap(lambda d: float(d.mean()), x + 9 * halves, 2000, strata=halves)
    within = [x[halves == k].var(ddof=1) / 200 / 4 for k in (0, 1)]
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(sum(within)), rel=0.06)
