import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from diffusion_jax.diffusion.process import table_index
from diffusion_jax.diffusion.schedules import (
    DDPM,
    EDM,
    VE,
    Cauchy,
    Cosine,
    Flow,
    Laplace,
    LinearBeta,
    LinearLogSNR,
    ScaledLinear,
    Shifted,
    Sigmoid,
    SubVP,
    ZeroTerminalSNR,
)
from tests.oracles import SCHEDULES, times_of

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
    np.testing.assert_allclose(schedule.logsnr(t), np.log(alpha**2 / sigma**2), atol=1e-9)
    assert schedule.logsnr(jnp.array(0.0)) > 13


@all_schedules
def test_logsnr_falls_at_every_step(name):
    """In float32, at all steps of a sampler with 1,000 steps, or 30 for laws with long tails."""
    steps = 30 if name in ("laplace", "cauchy", "zero_snr_scaled_linear") else 1000
    logsnr = SCHEDULES[name].logsnr(jnp.linspace(0, 1, steps + 1))
    assert np.all(np.diff(logsnr) < 0)


@all_schedules
def test_logsnr_falls_strictly_on_a_fine_grid(x64, name):
    """Also where it falls least: in float64, at 20,000 steps, from +inf to -inf in some."""
    logsnr = np.asarray(SCHEDULES[name].logsnr(jnp.linspace(0, 1, 20001)))
    assert np.all(logsnr[1:] < logsnr[:-1])


OTHER_SCALES = {
    "flow": lambda alpha, sigma: alpha + sigma,
    "shifted_flow": lambda alpha, sigma: alpha + sigma,
    "edm": lambda alpha, sigma: alpha,
    "ve": lambda alpha, sigma: alpha,
    "sub_vp": lambda alpha, sigma: alpha**2 + sigma,
}
"""What is 1 at all times; for the other schedules the variance."""


@all_schedules
def test_every_schedule_keeps_its_scale(x64, name):
    schedule, t = SCHEDULES[name], np.linspace(0, 1, 1001)
    alpha, sigma = (np.asarray(c(t)) for c in (schedule.alpha, schedule.sigma))
    kept = OTHER_SCALES.get(name, lambda alpha, sigma: alpha**2 + sigma**2)(alpha, sigma)
    np.testing.assert_allclose(kept, 1, atol=1e-14)
    np.testing.assert_allclose(schedule.norm(alpha, sigma), 1, atol=1e-14)
    np.testing.assert_allclose(schedule.norm(3 * alpha, 3 * sigma), 3, atol=1e-13)


@all_schedules
def test_time_is_found_from_logsnr(x64, name):
    schedule, t = SCHEDULES[name], times_of(name)
    np.testing.assert_allclose(schedule.time_at(schedule.logsnr(t)), t, rtol=1e-7)
    slope = jax.grad(lambda logsnr: schedule.time_at(logsnr).sum())(schedule.logsnr(t))
    rate = jax.grad(lambda t: schedule.logsnr(t).sum())(t)
    np.testing.assert_allclose(slope * rate, 1, rtol=1e-6)
    ends = schedule.time_at(jnp.array([1e6, -1e6]))
    np.testing.assert_allclose(ends, [0, 1], rtol=1e-15)


def test_scaled_linear_is_that_of_stable_diffusion(x64):
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    t = np.arange(1, 1001) / 1000
    np.testing.assert_allclose(ScaledLinear().alpha(t) ** 2, np.cumprod(1 - betas), atol=1e-12)
    np.testing.assert_allclose(table_index(ScaledLinear(), t), np.arange(1000), atol=1e-9)
    # The figure that users of Stable Diffusion know: alpha_bar of its last step.
    np.testing.assert_allclose(ScaledLinear().alpha(jnp.array(1.0)) ** 2, 0.00466, atol=5e-6)


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 1.0])
def test_sub_vp_has_the_variance_of_its_sde(x64, t):
    """Eq. 29, Song et al. 2021: `sigma^2 = (1 - exp(-int beta))^2`; alpha as of the VP SDE."""
    area, _ = integrate.quad(lambda s: 0.1 + s * 19.9, 0, t)
    np.testing.assert_allclose(SubVP().sigma(jnp.array(t)) ** 2, np.expm1(-area) ** 2, rtol=1e-12)
    np.testing.assert_allclose(SubVP().alpha(jnp.array(t)), np.exp(-area / 2), rtol=1e-12)


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 1.0])
def test_ve_has_the_variance_of_its_sde(x64, t):
    """The integral of `g^2 = d(sigma(s)^2)/ds` with `sigma(s) = s_min (s_max / s_min)^s`."""
    g2 = lambda s: 2 * np.log(5000) * (0.01 * 5000**s) ** 2  # noqa: E731
    area, _ = integrate.quad(g2, 0, t, epsabs=0)
    np.testing.assert_allclose(VE().sigma(jnp.array(t)) ** 2, area, rtol=1e-9)
    assert VE().alpha(jnp.array(t)) == 1


def test_edm_has_its_steps_evenly_in_time(x64):
    """Eq. 5, Karras et al. 2022, with 18 steps."""
    i, n, rho, low, high = np.arange(18), 18, 7, 0.002, 80.0
    sigmas = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    times = np.linspace(1, (low / high) ** (1 / rho), n)
    np.testing.assert_allclose(EDM().sigma(times), sigmas, rtol=1e-12)


@pytest.mark.parametrize(("start", "end", "tau"), [(-3, 3, 1.0), (0, 3, 0.7), (-3, 3, 1.1)])
def test_sigmoid_is_the_published_one(x64, start, end, tau):
    """Chen 2023: `(v_end - sigmoid((t (end - start) + start) / tau)) / (v_end - v_start)`."""
    t = np.linspace(0, 1, 101)
    v = lambda x: special.expit(x / tau)  # noqa: E731
    gamma = (v(end) - v(t * (end - start) + start)) / (v(end) - v(start))
    schedule = Sigmoid(start, end, tau)
    np.testing.assert_allclose(schedule.alpha(t) ** 2, gamma, atol=3e-9)  # cut at -20
    np.testing.assert_allclose(schedule.sigma(t) ** 2, 1 - gamma, atol=3e-9)
    np.testing.assert_allclose(schedule.logsnr(jnp.array(1.0)), -20, atol=1e-9)


def test_linear_logsnr_is_linear(x64):
    t = np.linspace(0, 1, 11)
    schedule = LinearLogSNR(8.0, -5.0)
    np.testing.assert_allclose(schedule.logsnr(t), 8 - 13 * t, atol=1e-12)
    np.testing.assert_allclose(schedule.alpha(t) ** 2, special.expit(8 - 13 * t), rtol=1e-12)


@pytest.mark.parametrize(("mean", "scale", "high", "low"), [(0, 0.5, 13, -13), (1, 2, 6, -9)])
@pytest.mark.parametrize("law", ["laplace", "cauchy"])
def test_importance_schedules_are_quantiles_of_their_law(x64, law, mean, scale, high, low):
    """Uniform times have `logsnr` of the law, given that it lies within the limits."""
    make = {"laplace": Laplace, "cauchy": Cauchy}[law]
    full = getattr(stats, law)(mean, scale)
    t = np.linspace(0, 1, 201)
    found = make(mean, scale, high, low).logsnr(t)
    above, below = full.sf(high), full.cdf(low)
    np.testing.assert_allclose(full.sf(found), above + (1 - above - below) * t, atol=1e-12)
    np.testing.assert_allclose(np.asarray(found)[[0, -1]], [high, low], rtol=1e-9)


@pytest.mark.parametrize("name", ["cosine", "flow", "sub_vp", "edm", "ddpm"])
def test_shift_multiplies_noise_over_signal(x64, name):
    """And leaves the scale as it is; twice by 2 is once by 4."""
    base, t = SCHEDULES[name], times_of(name)
    shifted = Shifted(base, 4.0)
    np.testing.assert_allclose(shifted.logsnr(t), base.logsnr(t) - 2 * np.log(4), atol=1e-9)
    twice = Shifted(Shifted(base, 2.0), 2.0)
    np.testing.assert_allclose(twice.alpha(t), shifted.alpha(t), rtol=1e-12)
    np.testing.assert_allclose(twice.sigma(t), shifted.sigma(t), rtol=1e-12)


def test_shifted_flow_is_a_shift_of_time(x64):
    """Eq. 23, Esser et al. 2024: `t_m = f t / (1 + (f - 1) t)`."""
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(Shifted(Flow(), 3.0).sigma(t), 3 * t / (1 + 2 * t), rtol=1e-12)


def test_zero_terminal_snr_is_the_published_algorithm(x64):
    """Alg. 1, Lin et al. 2024, on the table of Stable Diffusion."""
    alphas = np.sqrt(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    first, last = alphas[0], alphas[-1]
    # There the first entry of the table is kept, here the clean data before it.
    expected = (alphas - last) / (1 - last)
    found = ZeroTerminalSNR(ScaledLinear())
    t = np.arange(1, 1001) / 1000
    np.testing.assert_allclose(found.alpha(t), expected, atol=1e-12)
    np.testing.assert_allclose(found.sigma(t), np.sqrt(1 - expected**2), atol=1e-12)
    published = (alphas - last) * first / (first - last)
    np.testing.assert_allclose(found.alpha(t), published, atol=5e-4)
    assert found.alpha(jnp.array(1.0)) == 0


@all_schedules
def test_zero_terminal_snr_of_any_schedule(x64, name):
    found, base = ZeroTerminalSNR(SCHEDULES[name]), SCHEDULES[name]
    assert found.alpha(jnp.array(1.0)) == 0
    np.testing.assert_allclose(found.sigma(jnp.array(1.0)), 1, rtol=1e-15)
    np.testing.assert_allclose(found.logsnr(jnp.array(0.0)), base.logsnr(jnp.array(0.0)), rtol=1e-9)
    np.testing.assert_allclose(ZeroTerminalSNR(found).alpha(0.3), found.alpha(0.3), rtol=1e-12)


@all_schedules
def test_rates_are_finite_differences(x64, name):
    # Between the entries of the tables, at which alpha has a kink.
    schedule, h = SCHEDULES[name], 1e-6
    t = (np.arange(1, 1000, 37) + 0.5) / 1000
    t = t[np.abs(t - 0.5) > 0.01]  # Laplace's law has a kink in the middle
    for rate, value in zip(schedule.rates(t), (schedule.alpha, schedule.sigma), strict=True):
        np.testing.assert_allclose(rate, (value(t + h) - value(t - h)) / (2 * h), rtol=1e-5)


EXACT_SIGMA = {
    "linear_beta": lambda t: np.sqrt(-np.expm1(-(0.1 * t + 19.9 * t**2 / 2))),
    "sub_vp": lambda t: -np.expm1(-(0.1 * t + 19.9 * t**2 / 2)),
    # Inside the first entry of the table: beta is constant.
    "ddpm": lambda t: np.sqrt(-np.expm1(1000 * t * np.log1p(-1e-4))),
    "cosine": lambda t: np.sin(t * np.arctan(np.exp(10.0))),
    "flow": lambda t: t,
    "edm": lambda t: 80 * t**7,
}
"""Sigma in float64, stated apart from the package."""


@pytest.mark.parametrize("name", EXACT_SIGMA)
def test_sigma_is_accurate_at_small_times_in_float32(name):
    """1 - alpha^2 would have lost all but three digits here."""
    t = np.array([1e-4, 3e-4, 9e-4], np.float32)
    sigma = SCHEDULES[name].sigma(jnp.asarray(t))
    assert sigma.dtype == jnp.float32
    np.testing.assert_allclose(sigma, EXACT_SIGMA[name](t.astype(np.float64)), rtol=1e-5)


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
        # alpha - alpha_1 is a difference near t = 1, as its definition is.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 if name.startswith("zero") else 0)
