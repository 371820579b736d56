"""Metrics against closed forms, published values and brute force."""

import numpy as np
import pytest
import scipy.linalg
from scipy.special import log_softmax

from diffusion_jax.metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_influence,
    moments,
    moments_of_chunks,
    square_root,
)
from diffusion_jax.metrics.inception import inception_influence, inception_score
from diffusion_jax.metrics.intervals import bootstrap, variance_of_mean, wilson, without_bias
from diffusion_jax.metrics.kernel import kernel, kernel_distance, mean_kernel
from diffusion_jax.metrics.neighbours import (
    balls_around,
    closest_pairs,
    memorised,
    nearest_distances,
    radii,
    reached,
    two_nearest,
)
from diffusion_jax.metrics.sliced import sliced_wasserstein


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


def test_moments_of_chunks_are_those_of_all_rows() -> None:
    x = 100 + np.random.default_rng(0).normal(size=(50, 3))
    found = moments_of_chunks(iter([x[:1], x[1:20], x[20:]]))
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.T), rtol=1e-9)


def covered(queries: np.ndarray, references: np.ndarray, k: int = 3) -> np.ndarray:
    return balls_around(queries, references, radii(references, k)) > 0


def features_of_both() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of samples `[500, 16]`, logits `[500, 10]`, and of real images `[600, 16]`."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(16, 16)) / 4
    real = np.maximum(rng.normal(size=(600, 16)) @ mix + 0.3, 0)
    fake = np.maximum(1.1 * rng.normal(size=(500, 16)) @ mix + 0.4, 0)
    return fake, 2 * rng.normal(size=(500, 10)), real


def test_published_implementations_give_the_same() -> None:
    """Figures for `features_of_both`; what follows was run with torch 2.15.0, scipy 1.17.1.

    torch-fidelity 0.4.0: `fid_statistics_to_metric` of `fid_features_to_statistics`,
    `kid_features_to_metric(fake, real[:500], kid_subsets=1, kid_subset_size=500)` and, in subsets
    drawn by other means, `kid_subsets=100, kid_subset_size=100`,
    `isc_features_to_metric(logits, splits=1, shuffle=False)`. pytorch-fid 0.3.0:
    `calculate_frechet_distance` of the same moments. prdc 0.2: `compute_prdc(real, fake, k)`.
    """
    fake, logits, real = features_of_both()
    ours = frechet_distance(moments(fake), moments(real))
    assert ours == pytest.approx(0.5150972820578694, rel=1e-9)  # torch-fidelity
    assert ours == pytest.approx(0.5150972820578517, rel=1e-9)  # pytorch-fid
    distance = kernel_distance(fake, real[:500], mean_kernel(real[:500]))[0]
    assert distance == pytest.approx(0.173265772267289, rel=1e-9)
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        x, y = (f[rng.choice(len(f), 100, replace=False)] for f in (fake, real))
        found.append(mean_kernel(x) + mean_kernel(y) - 2 * kernel(x, y).mean())
    assert np.mean(found) == pytest.approx(0.16316449792572457, abs=2 * 0.11 / 10)
    assert np.std(found) == pytest.approx(0.11061359517293631, rel=0.2)
    assert inception_score(log_softmax(logits, axis=1)) == pytest.approx(2.641708184911, rel=1e-9)
    for k, prdc in ((3, (0.762, 0.945, 0.732, 0.755)), (5, (0.854, 0.99, 0.7308, 0.908333333))):
        found = (
            covered(fake, real, k), covered(real, fake, k),
            balls_around(fake, real, radii(real, k)) / k, reached(fake, real, radii(real, k)),
        )  # fmt: skip
        np.testing.assert_allclose([f.mean() for f in found], prdc, rtol=1e-6)


def test_sliced_wasserstein_is_optimal_transport_on_each_line() -> None:
    fake, _, real = features_of_both()
    line = np.random.default_rng(0).normal(size=(1, 16))[0]
    line /= np.linalg.norm(line)
    many = [np.repeat(np.sort(f @ line), 3000 // len(f)) for f in (fake, real)]  # 500 x 6, 600 x 5
    expected = ((many[0] - many[1]) ** 2).mean()
    assert sliced_wasserstein(fake, real, 1)[0] == pytest.approx(expected, rel=1e-9)
    # A shift is that along each line: on average over directions |shift|^2 / D.
    shift = sliced_wasserstein(real + np.eye(16)[0], real, 2000)[0]
    assert shift == pytest.approx(1 / 16, rel=0.1)


@pytest.mark.parametrize("metric", ["frechet", "inception", "sliced"])
def test_influence_is_what_leaving_a_sample_out_does(metric: str) -> None:
    fake, logits, real = features_of_both()
    log_p, reference = log_softmax(logits, axis=1), moments(real)
    value, influence = {
        "frechet": lambda rows: frechet_distance(moments(fake[rows]), reference),
        "inception": lambda rows: inception_score(log_p[rows]),
        "sliced": lambda rows: sliced_wasserstein(fake[rows], real, 16)[0],
    }[metric], {
        "frechet": lambda: frechet_influence(fake, reference, square_root(reference.covariance)),
        "inception": lambda: inception_influence(log_p),
        "sliced": lambda: sliced_wasserstein(fake, real, 16)[1],
    }[metric]()  # fmt: skip
    every = np.arange(len(fake))
    without = np.array([value(np.delete(every, i)) for i in range(80)])
    change = (len(fake) - 1) * (value(every) - without)
    change, psi = change - change.mean(), influence[:80] - influence[:80].mean()
    assert change @ psi / (psi @ psi) == pytest.approx(1, abs=0.05)  # of 500, not of all
    assert np.std(change - psi) < 0.07 * np.std(psi)


def test_kernel_distance_of_fixed_labels_is_unbiased() -> None:
    """With labels fixed there are too few pairs of one class: the published estimate is below 0."""
    labels = np.arange(20) % 4
    plain, shared = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = (3 * np.eye(4)[labels] + 0.3 * rng.normal(size=(20, 4)) for _ in range(2))
        plain.append(kernel_distance(x, y, mean_kernel(y))[0])
        shared.append(kernel_distance(x, y, mean_kernel(y, labels), labels)[0])
    for found, low, high in ((plain, -np.inf, -20), (shared, -3, 3)):
        assert low < np.mean(found) / (np.std(found) / 60**0.5) < high


def test_extrapolation_removes_a_bias_of_one_over_n() -> None:
    x = np.random.default_rng(0).normal(size=101)

    def biased(rows: np.ndarray) -> float:
        return float(x[rows].mean() + 7 / len(rows))

    found = without_bias(biased, biased(np.arange(101)), 0.04, 101)
    assert found.value == pytest.approx(x.mean(), abs=0.01)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.2, rel=0.02)


def test_variance_of_a_mean_counts_what_varies_within_kinds() -> None:
    x = np.array([0.0, 2.0, 10.0, 12.0, 14.0])
    assert variance_of_mean(x) == pytest.approx(x.var(ddof=1) / 5)
    # Two of variance 2, three of variance 4.
    assert variance_of_mean(x, np.array([7, 7, 3, 3, 3])) == pytest.approx((2 * 2 + 3 * 4) / 25)
    # Kinds of one row are one kind.
    assert variance_of_mean(x, np.array([1, 2, 3, 3, 3])) == pytest.approx((2 * 2 + 3 * 4) / 25)


def test_copies_of_training_images_are_seen() -> None:
    rng = np.random.default_rng(0)
    train, heldout, fresh = rng.normal(size=(3, 400, 6))
    samples = np.concatenate([train[:100] + 0.01, fresh[:300]])
    distances, numbers = two_nearest(samples, train)
    np.testing.assert_array_equal(numbers[:100, 0], np.arange(100))
    np.testing.assert_allclose(distances[:, 1], nearest_distances(samples, train, 2), rtol=1e-3)
    limit = nearest_distances(heldout, train)
    value, low, high = memorised(distances[:, 0], limit)
    assert low < 0.25 + 0.75 * 0.05 < high
    assert value > low > 0.2
    _, low, high = memorised(nearest_distances(fresh, train), limit)
    assert low < 0.05 < high
    pairs = closest_pairs(distances[:, 0], numbers[:, 0], 3)
    assert [sample == number for sample, number, _ in pairs] == [True] * 3
    assert pairs[0][2] <= pairs[1][2] <= pairs[2][2] < 0.03


def test_neighbours_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(700, 4)), 0.5 * rng.normal(size=(600, 4)) + 1
    pairs = np.linalg.norm(fake[:, None] - real[None], axis=-1)
    np.testing.assert_allclose(nearest_distances(fake, real), pairs.min(1), rtol=1e-3)
    np.testing.assert_allclose(nearest_distances(fake, real, 3), np.sort(pairs, 1)[:, 2], rtol=1e-3)
    own = np.linalg.norm(real[:, None] - real[None], axis=-1)
    limits = np.sort(own, 1)[:, 3]  # the point itself comes first
    expected = (pairs <= limits).any(1)
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
