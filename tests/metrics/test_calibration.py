"""Ranks, coverage and spread of posterior samples, against closed forms for normal laws."""

import itertools

import numpy as np
import pytest
from scipy import stats

from diffusion_jax.metrics.calibration import (
    coverage,
    histogram,
    mean_line,
    ranks,
    spread,
    uniformity,
)

K = 19


def law_of_ranks(std: float, shift: float = 0.0) -> np.ndarray:
    """Probability of each rank of a standard normal among K samples of `N(shift, std^2)`."""
    x = np.linspace(-9, 9, 20_001)
    below = stats.norm.cdf((x - shift) / std)
    each = stats.binom.pmf(np.arange(K + 1)[:, None], K, below)
    return np.trapezoid(each * stats.norm.pdf(x), x, axis=1)


def draw(
    num: int, features: int, std: float = 1.0, seed: int = 0, common: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Truths and samples around a mean of their own; features are independent, or all equal."""
    rng = np.random.default_rng(seed)
    different = 1 if common else features
    mean = rng.normal(size=(num, 1, different))
    truth = mean[:, 0] + rng.normal(size=(num, different))
    samples = mean + std * rng.normal(size=(num, K, different))
    return np.repeat(truth, features // different, 1), np.repeat(samples, features // different, 2)


def test_ranks_by_hand_and_ties_at_random() -> None:
    truth, samples = np.array([[2.5, 1.0]]), np.array([[[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]])
    np.testing.assert_array_equal(ranks(truth, samples), [[2, 0]])
    ties = ranks(np.zeros((20_000, 1)), np.zeros((20_000, 3, 1)))
    np.testing.assert_allclose(histogram(ties, 3, 4).mean(0), 0.25, atol=0.015)
    assert uniformity(ties, 3, 4) > 1e-3


@pytest.mark.parametrize("common", [False, True])
def test_exact_posteriors_pass_as_often_as_they_should(common: bool) -> None:
    """P-values are uniform, and intervals of coverage hold, whether features depend or not."""
    p_values, covered = [], []
    for seed in range(300):
        found = ranks(*draw(60, 6, seed=seed, common=common), seed)
        p_values.append(uniformity(found, K))
        _, low, high = coverage(found, K, 0.5)
        covered.append(low <= 0.5 <= high)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert 0.90 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("std", [0.7, 1.0, 1.4])
def test_wrong_spreads_are_found_and_measured(std: float) -> None:
    truth, samples = draw(1500, 4, std)
    found, law = ranks(truth, samples), law_of_ranks(std)
    error = 4 * np.sqrt(law * (1 - law) / found.size)
    np.testing.assert_array_less(np.abs(histogram(found, K, K + 1).mean(0) - law), error)
    for level, least in ((0.5, 5), (0.9, 1)):
        value, low, high = coverage(found, K, level)
        exact = law[least : K + 1 - least].sum()
        assert low - (value - low) <= exact <= high + (high - value)
        assert (low <= level <= high) == (std == 1)
    assert (uniformity(found, K) > 0.01) == (std == 1)
    value, low, high = spread(truth, samples)
    assert abs(value - std) < high - value < 0.05


def test_a_bias_is_found() -> None:
    truth, samples = draw(400, 3)
    assert uniformity(ranks(truth + 0.3, samples), K) < 1e-6


def test_one_feature_is_pearsons_test() -> None:
    found = ranks(*draw(60, 1, 0.9))
    counts = np.bincount(found[:, 0] // 2, minlength=10)
    np.testing.assert_allclose(uniformity(found, K), stats.chisquare(counts).pvalue, rtol=0.05)


def test_numbers_that_do_not_fit_are_refused() -> None:
    found = np.zeros((3, 1), int)
    with pytest.raises(ValueError, match="must leave a whole number of the 16 ranks"):
        coverage(found, 15, 0.9)
    with pytest.raises(ValueError, match="bins=10 must divide the number of ranks, 16"):
        uniformity(found, 15)


def test_errors_of_means_are_those_of_all_choices_of_samples() -> None:
    truth, samples = draw(5, 3)
    samples = samples[:, :5]
    found = mean_line(truth, samples)
    for k in range(1, 6):
        means = [samples[:, list(c)].mean(1) for c in itertools.combinations(range(5), k)]
        expected = np.mean([(truth - each) ** 2 for each in means])
        np.testing.assert_allclose(found.error[k - 1].value, expected)


@pytest.mark.parametrize(("std", "shift"), [(1.0, 0.0), (0.7, 0.0), (1.4, 0.0), (1.0, 0.5)])
def test_exact_samples_are_on_the_line_and_others_leave_it(std: float, shift: float) -> None:
    """The truth has variance 1 around the mean: MSE_k = 1 + shift^2 + std^2 / k."""
    truth, samples = draw(2000, 4, std)
    found = mean_line(truth, samples + shift)
    for k in (1, 2, K):
        value, low, high = found.error[k - 1]
        assert low <= 1 + shift**2 + std**2 / k <= high
        assert high - low < 0.2 * value
    left = 10 * np.log10((1 + shift**2 + std**2) / (2 + 2 * shift**2))
    assert found.left.low <= left <= found.left.high
    assert (found.left.low <= 0 <= found.left.high) == (std == 1 and shift == 0)
