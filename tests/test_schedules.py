import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SCHEDULES, VARIANCE_PRESERVING
from scipy import integrate

from diffusion_jax.schedules import DDPM, Cosine, Flow, LinearBeta

all_schedules = pytest.mark.parametrize("name", SCHEDULES)


def published_alpha_bar() -> np.ndarray:
    """Sec. 4, Ho et al. 2020: 1,000 betas in equal steps, and their product of Eq. 4."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def test_ddpm_is_the_published_table_in_float32():
    t = jnp.arange(1, 1001) / 1000
    assert t.dtype == jnp.float32
    np.testing.assert_allclose(DDPM().alpha(t) ** 2, published_alpha_bar(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(DDPM().sigma(t) ** 2, 1 - published_alpha_bar(), rtol=1e-5)


def test_ddpm_is_the_published_table_in_float64(x64):
    t = jnp.arange(1, 1001) / 1000
    np.testing.assert_allclose(DDPM().alpha(t) ** 2, published_alpha_bar(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(DDPM().sigma(t) ** 2, 1 - published_alpha_bar(), rtol=0, atol=1e-12)


def test_ddpm_starts_clean_and_takes_other_tables(x64):
    assert DDPM().alpha(jnp.array(0.0)) == 1
    assert DDPM().sigma(jnp.array(0.0)) == 0
    table = np.cumprod(1 - np.linspace(0.01, 0.3, 20))
    schedule = DDPM(beta_start=0.01, beta_end=0.3, num_steps=20)
    np.testing.assert_allclose(schedule.alpha(jnp.arange(1, 21) / 20) ** 2, table, atol=1e-12)


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("betas", [(0.1, 20.0), (0.5, 8.0)])
def test_linear_beta_is_the_integral_of_beta(x64, betas, t):
    """Eq. 29, Song et al. 2021: `alpha_t = exp(-1/2 int_0^t beta(s) ds)` with beta linear."""
    area, _ = integrate.quad(lambda s: betas[0] + s * (betas[1] - betas[0]), 0, t)
    schedule = LinearBeta(*betas)
    np.testing.assert_allclose(schedule.alpha(jnp.array(t)), np.exp(-area / 2), rtol=1e-12)
    np.testing.assert_allclose(schedule.sigma(jnp.array(t)) ** 2, -np.expm1(-area), rtol=1e-12)


@pytest.mark.parametrize("logsnr_min", [-20.0, -10.0])
def test_cosine_is_a_cosine_that_ends_at_its_logsnr(x64, logsnr_min):
    """alpha_t^2 = cos^2(theta t), logsnr = -2 log tan(theta t) (Ho & Salimans 2022, Sec. 2)."""
    schedule, t = Cosine(logsnr_min), np.linspace(0.01, 1, 100)
    theta = np.arctan(np.exp(-logsnr_min / 2))
    np.testing.assert_allclose(schedule.alpha(t) ** 2, np.cos(theta * t) ** 2, atol=1e-14)
    np.testing.assert_allclose(schedule.logsnr(t), -2 * np.log(np.tan(theta * t)), atol=1e-9)
    np.testing.assert_allclose(schedule.logsnr(jnp.array(1.0)), logsnr_min, atol=1e-10)


def test_cosine_ends_at_its_logsnr_in_float32():
    np.testing.assert_allclose(Cosine(-20.0).logsnr(jnp.float32(1)), -20.0, atol=1e-4)


def test_cosine_is_near_the_published_one(x64):
    """`alpha_bar(t) = f(t) / f(0)` with offset 0.008 (Eq. 17, Nichol & Dhariwal 2021)."""
    t = np.linspace(0, 1, 101)
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(Cosine().alpha(t) ** 2, f / f[0], atol=0.013)


def test_flow_is_linear(x64):
    t = np.linspace(0, 1, 11)
    np.testing.assert_array_equal(Flow().alpha(t), 1 - t)
    np.testing.assert_array_equal(Flow().sigma(t), t)


@all_schedules
def test_logsnr_is_what_its_name_says(x64, name):
    schedule, t = SCHEDULES[name], np.linspace(0.01, 0.99, 99)
    alpha, sigma = (np.asarray(c(t)) for c in (schedule.alpha, schedule.sigma))
    np.testing.assert_allclose(schedule.logsnr(t), np.log(alpha**2 / sigma**2), atol=1e-10)
    assert schedule.logsnr(jnp.array(0.0)) == np.inf


@all_schedules
def test_logsnr_falls_at_every_step(name):
    """In float32, at all steps of a sampler with 1,000 steps."""
    logsnr = SCHEDULES[name].logsnr(jnp.linspace(0, 1, 1001))
    assert np.all(np.diff(logsnr) < 0)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_variance_is_preserved(x64, name):
    schedule, t = SCHEDULES[name], np.linspace(0, 1, 1001)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=1e-14)


@all_schedules
def test_rates_are_finite_differences(x64, name):
    # Between the entries of the DDPM table, at which alpha has a kink.
    schedule, h = SCHEDULES[name], 1e-6
    t = (np.arange(1, 1000, 37) + 0.5) / 1000
    for rate, value in zip(schedule.rates(t), (schedule.alpha, schedule.sigma), strict=True):
        np.testing.assert_allclose(rate, (value(t + h) - value(t - h)) / (2 * h), rtol=1e-6)


def exact_sigma(name: str, t: np.ndarray) -> np.ndarray:
    """Sigma in float64, stated apart from the package."""
    if name == "linear_beta":
        return np.sqrt(-np.expm1(-(0.1 * t + 19.9 * t**2 / 2)))
    if name == "ddpm":  # inside the first entry of the table: beta is constant
        return np.sqrt(-np.expm1(1000 * t * np.log1p(-1e-4)))
    if name == "cosine":
        return np.sin(t * np.arctan(np.exp(10.0)))
    return t


@all_schedules
def test_sigma_is_accurate_at_small_times_in_float32(name):
    """1 - alpha^2 would have lost all but three digits here."""
    t = np.array([1e-4, 3e-4, 9e-4], np.float32)
    sigma = SCHEDULES[name].sigma(jnp.asarray(t))
    assert sigma.dtype == jnp.float32
    np.testing.assert_allclose(sigma, exact_sigma(name, t.astype(np.float64)), rtol=1e-5)


@all_schedules
def test_float32_and_float64_agree(name):
    t = np.linspace(1e-4, 1, 500, dtype=np.float32)
    schedule = SCHEDULES[name]
    single = [np.asarray(f(jnp.asarray(t))) for f in (schedule.alpha, schedule.sigma)]
    with jax.enable_x64(True):
        double = [
            np.asarray(f(jnp.asarray(t, jnp.float64))) for f in (schedule.alpha, schedule.sigma)
        ]
    for a, b in zip(single, double, strict=True):
        assert (a.dtype, b.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(a, b, rtol=1e-5)
