import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.diffusion.corruption import (
    diffuse,
    learned_log_variance,
    posterior_mean,
    reverse_variances,
    sample_keys,
    sample_noise,
    variational_term,
)
from tests.oracles import CLEAN, SCHEDULES, three_components

all_schedules = pytest.mark.parametrize("name", SCHEDULES)
STEPS = [(0.002, 0.001), (0.05, 0.02), (0.5, 0.499), (0.7, 0.2), (0.999, 0.9)]
BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BARS = np.cumprod(1 - BETAS)


def coefficients(name, *times):
    schedule = SCHEDULES[name]
    values = [(schedule.alpha(jnp.array(t)), schedule.sigma(jnp.array(t))) for t in times]
    return [float(c) for pair in values for c in pair]


def gaussian_conditioning(name, x_t, x_0, t, s):
    """`q(x_s | x_t, x_0)` as a product: N(x_s; alpha_s x_0, sigma_s^2) N(x_t; a x_s, tau^2).

    `x_t` given `x_s` has the scale and variance that take the marginal at s into that at t.
    """
    alpha_t, sigma_t, alpha_s, sigma_s = coefficients(name, t, s)
    a = alpha_t / alpha_s
    tau2 = sigma_t**2 - a**2 * sigma_s**2
    precision = 1 / sigma_s**2 + a**2 / tau2
    return (alpha_s * x_0 / sigma_s**2 + a * x_t / tau2) / precision, 1 / precision, tau2


@all_schedules
@pytest.mark.parametrize(("t", "s"), STEPS)
def test_reverse_step_is_gaussian_conditioning(x64, name, t, s):
    x_t, x_0 = np.random.default_rng(0).normal(size=(2, 3, 4))
    mean, lower, upper = gaussian_conditioning(name, x_t, x_0, t, s)
    t, s = jnp.array(t), jnp.array(s)
    np.testing.assert_allclose(posterior_mean(SCHEDULES[name], x_t, x_0, t, s), mean, rtol=1e-8)
    variances = reverse_variances(SCHEDULES[name], t, s)
    np.testing.assert_allclose(variances, (lower, upper), rtol=1e-8)


@pytest.mark.parametrize("name", CLEAN)
def test_last_step_is_the_data(x64, name):
    x_t, x_0 = np.random.default_rng(0).normal(size=(2, 3, 4))
    t, s = jnp.array(0.3), jnp.array(0.0)
    np.testing.assert_allclose(posterior_mean(SCHEDULES[name], x_t, x_0, t, s), x_0, rtol=1e-12)
    lower, upper = reverse_variances(SCHEDULES[name], t, s)
    assert lower == 0
    np.testing.assert_allclose(upper, SCHEDULES[name].sigma(t) ** 2, rtol=1e-12)


def test_flow_steps_down_from_pure_noise(x64):
    """At t = 1 there is no data in x_t: what is known of x_s is x_0 alone."""
    x_t, x_0 = np.random.default_rng(0).normal(size=(2, 3, 4))
    t, s = jnp.array(1.0), jnp.array(0.6)
    mean = posterior_mean(SCHEDULES["flow"], x_t, x_0, t, s)
    np.testing.assert_allclose(mean, 0.4 * x_0, rtol=1e-12)
    variances = reverse_variances(SCHEDULES["flow"], t, s)
    np.testing.assert_allclose(variances, (0.36, 1.0), rtol=1e-12)


@pytest.mark.parametrize("i", [2, 3, 100, 500, 1000])
def test_reverse_step_is_that_of_ddpm(x64, i):
    """Eqs. 6-7, Ho et al. 2020, by the entries of the published table."""
    beta, alpha_bar, before = BETAS[i - 1], ALPHA_BARS[i - 1], ALPHA_BARS[i - 2]
    x_t, x_0 = np.random.default_rng(0).normal(size=(2, 3, 4))
    mean = (
        np.sqrt(before) * beta / (1 - alpha_bar) * x_0
        + np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar) * x_t
    )
    t, s = jnp.array(i / 1000), jnp.array((i - 1) / 1000)
    np.testing.assert_allclose(posterior_mean(SCHEDULES["ddpm"], x_t, x_0, t, s), mean, rtol=1e-9)
    lower, upper = reverse_variances(SCHEDULES["ddpm"], t, s)
    np.testing.assert_allclose(lower, (1 - before) / (1 - alpha_bar) * beta, rtol=1e-9)
    np.testing.assert_allclose(upper, beta, rtol=1e-9)


@all_schedules
def test_reverse_step_in_float32(name):
    """1,000 steps in float32 stay within 2e-4 of float64: rest = 1 - SNR_t / SNR_s is small."""
    s = np.arange(1, 1000, dtype=np.float32) / 1000
    t = s + np.float32(1e-3)
    single = reverse_variances(SCHEDULES[name], jnp.asarray(t), jnp.asarray(s))
    with jax.enable_x64(True):
        double = reverse_variances(
            SCHEDULES[name], jnp.asarray(t, jnp.float64), jnp.asarray(s, jnp.float64)
        )
    np.testing.assert_allclose(single, double, rtol=2e-4, atol=1e-37)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("i", [1, 2, 500, 1000])
def test_learned_variance_is_that_of_improved_ddpm(x64, i, fraction):
    """Eq. 15, Nichol & Dhariwal 2021; at the first entry, where beta tilde is 0, the second's."""
    j = max(i, 2)
    tilde = (1 - ALPHA_BARS[j - 2]) / (1 - ALPHA_BARS[j - 1]) * BETAS[j - 1]
    expected = fraction * np.log(BETAS[i - 1]) + (1 - fraction) * np.log(tilde)
    found = learned_log_variance(
        SCHEDULES["ddpm"],
        jnp.full((2, 3), fraction),
        jnp.array(i / 1000),
        jnp.array((i - 1) / 1000),
    )
    np.testing.assert_allclose(found, np.full((2, 3), expected), rtol=1e-8)


def term(x_0, x_t, x_0_hat, fraction, t, s, levels):
    """Of samples `[6, 4]`, all at the same times of the cosine schedule."""
    fraction, times = np.full_like(x_0, fraction), (np.full(len(x_0), t), np.full(len(x_0), s))
    return variational_term(SCHEDULES["cosine"], x_0, x_t, x_0_hat, fraction, *times, levels)


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_the_last_term_of_continuous_data_is_their_density(x64, fraction):
    """`-log N(x_0; x_0_hat, v)`: at s = 0 the mean is what the denoiser says of the data."""
    x_0, x_t, x_0_hat = np.random.default_rng(0).normal(size=(3, 6, 4))
    log_variance = learned_log_variance(
        SCHEDULES["cosine"], jnp.array(fraction), jnp.array(0.02), jnp.array(0.0)
    )
    law = stats.norm(x_0_hat, np.exp(0.5 * float(log_variance)))
    found = term(x_0, x_t, x_0_hat, fraction, 0.02, 0.0, levels=0)
    np.testing.assert_allclose(found, -law.logpdf(x_0), rtol=1e-8)


def test_many_levels_are_continuous_data(x64):
    """A level's probability is the density times the width of its bin; other terms are the same."""
    levels = 100_001
    x_0 = np.random.default_rng(0).integers(10_000, 90_000, (6, 4)) * 2 / (levels - 1) - 1
    x_t, x_0_hat = 0.9 * x_0, x_0 + 0.01
    density, probability = (term(x_0, x_t, x_0_hat, 0.5, 0.02, 0.0, n) for n in (0, levels))
    np.testing.assert_allclose(probability + np.log(2 / (levels - 1)), density, atol=1e-5)
    between = [term(x_0, x_t, x_0_hat, 0.5, 0.3, 0.2, n) for n in (0, levels)]
    np.testing.assert_array_equal(*between)


def test_times_per_sample_are_times_one_by_one(x64):
    x_t, x_0 = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2))
    t, s = np.array([0.2, 0.5, 0.9]), np.array([0.1, 0.3, 0.2])
    schedule = SCHEDULES["cosine"]
    mean = posterior_mean(schedule, x_t, x_0, t, s)
    log_variance = learned_log_variance(schedule, np.full_like(x_t, 0.4), t, s)
    noisy = diffuse(schedule, x_0, x_t, t)
    for i in range(3):
        times = jnp.array(t[i]), jnp.array(s[i])
        alone = posterior_mean(schedule, x_t[i], x_0[i], *times)
        np.testing.assert_allclose(mean[i], alone, rtol=1e-12)
        alone = learned_log_variance(schedule, np.full_like(x_t[i], 0.4), *times)
        np.testing.assert_allclose(log_variance[i], alone, rtol=1e-12)
        alpha, sigma = coefficients("cosine", t[i])
        np.testing.assert_allclose(noisy[i], alpha * x_0[i] + sigma * x_t[i], rtol=1e-12)


def test_noise_of_a_sample_is_the_same_in_every_batch():
    key, shape = jax.random.key(0), (4, 4, 3)
    noise = {n: sample_noise(sample_keys(key, jnp.arange(n)), shape) for n in (1, 7, 64)}
    np.testing.assert_array_equal(noise[1], noise[64][:1])
    np.testing.assert_array_equal(noise[7], noise[64][:7])
    part = sample_noise(sample_keys(key, jnp.array([40, 3])), shape)
    np.testing.assert_array_equal(part, noise[64][jnp.array([40, 3])])


def test_noise_is_standard_normal_and_no_two_samples_share_it():
    noise = np.asarray(sample_noise(sample_keys(jax.random.key(0), jnp.arange(200)), (50,)))
    assert len(np.unique(noise)) > 0.999 * noise.size
    # Fixed key; false-alarm rate 1e-6.
    assert stats.kstest(noise.ravel().astype(np.float64), stats.norm.cdf).pvalue > 1e-6
    other = sample_noise(sample_keys(jax.random.key(1), jnp.arange(200)), (50,))
    assert abs(np.corrcoef(noise.ravel(), np.ravel(other))[0, 1]) < 0.05


# The oracle itself, on which the tests of samplers, losses and guidance rest.


def points(num=6, dim=2):
    return np.random.default_rng(0).normal(size=(num, dim)) * 1.5


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.9, 0.3), (0.3, 1.2), (0.0, 1.0)])
def test_oracle_density_is_that_of_scipy(x64, alpha, sigma):
    mixture = three_components()
    expected = sum(
        w * stats.multivariate_normal(alpha * m, alpha**2 * c + sigma**2 * np.eye(2)).pdf(points())
        for w, m, c in zip(mixture.weights, mixture.means, mixture.covs, strict=True)
    )
    density = jnp.exp(mixture.log_density(points(), alpha, sigma))
    np.testing.assert_allclose(density, expected, rtol=1e-10)


@all_schedules
def test_oracle_score_is_the_gradient_and_its_mean_is_tweedies(x64, name):
    mixture, schedule, t = three_components(), SCHEDULES[name], np.linspace(0.05, 0.95, 6)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    gradient = jax.grad(lambda x: mixture.log_density(x, alpha, sigma).sum())(points())
    np.testing.assert_allclose(mixture.score(points(), alpha, sigma), gradient, rtol=1e-9)
    tweedie = (points() + sigma[:, None] ** 2 * gradient) / alpha[:, None]
    found = mixture.denoiser(schedule)(points(), t, {})
    np.testing.assert_allclose(found.x_0, tweedie, rtol=1e-8)
    assert found.variance is None


def test_oracle_given_a_label_is_that_component(x64):
    mixture = three_components()
    labels = np.array([0, 1, 2, 2, -1, -1])
    found = mixture.posterior_mean(points(), 0.8, 0.6, labels)
    free = mixture.posterior_mean(points(), 0.8, 0.6)
    np.testing.assert_allclose(found[4:], free[4:], rtol=1e-12)
    for i in range(4):
        k = labels[i]
        one = type(mixture)(np.ones(1), mixture.means[k : k + 1], mixture.covs[k : k + 1])
        expected = one.posterior_mean(points()[i : i + 1], 0.8, 0.6)[0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-10)


def test_oracle_samples_have_its_moments(x64):
    """Also after `diffuse`; 100,000 samples, 5 standard errors: false-alarm rate 1e-5."""
    mixture, num = three_components(), 100_000
    x_0 = mixture.sample(jax.random.key(0), num)
    eps = sample_noise(sample_keys(jax.random.key(1), jnp.arange(num)), (2,))
    alpha, sigma = coefficients("cosine", 0.4)
    x_t = np.asarray(diffuse(SCHEDULES["cosine"], x_0, eps, jnp.full(num, 0.4)))
    for x, scales in ((np.asarray(x_0), (1.0, 0.0)), (x_t, (alpha, sigma))):
        mean, cov = mixture.moments(*scales)
        outer = (x - mean)[:, :, None] * (x - mean)[:, None, :]
        assert np.all(np.abs(x.mean(0) - mean) < 5 * x.std(0) / np.sqrt(num))
        assert np.all(np.abs(outer.mean(0) - cov) < 5 * outer.std(0) / np.sqrt(num))
