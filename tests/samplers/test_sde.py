"""Stochastic samplers and Restart: published steps, weak order, final distribution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.samplers import sde
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.ode import heun
from diffusion_jax.samplers.restart import restart, restart_times
from diffusion_jax.samplers.sde import churn
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, assert_own_and_right, gaussian, karras_times, keys_of

SAMPLERS = {
    "dpmpp_sde_multistep": sde.dpmpp_sde_multistep,
    "dpmpp_sde": sde.dpmpp_sde,
    "predictor_corrector": lambda schedule: sde.predictor_corrector(
        schedule, sde.dpmpp_sde_multistep(schedule), corrector_steps=2, snr=0.08
    ),
    "churn": lambda schedule: churn(schedule, 40, s_churn=10.0, s_max=np.inf, s_noise=1.0),
    "restart": lambda schedule: restart(schedule, sde.dpmpp_sde_multistep(schedule)),
    "euler_maruyama": sde.euler_maruyama,
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.slow
def test_samples_are_their_own_and_of_the_right_law(sampler):
    times = karras_times(200 if sampler == "euler_maruyama" else 40)
    if sampler == "restart":
        times = jnp.asarray(restart_times(np.asarray(times), 0.2, 0.6, 2, 12))
    assert_own_and_right(SAMPLERS[sampler], times)


# The order of convergence in law, without sampling: on Gaussian data all methods are linear.

ORDERS = {
    "euler_maruyama": (sde.euler_maruyama, 1),
    "euler_maruyama_0.5": (lambda schedule: sde.euler_maruyama(schedule, noise=0.5), 1),
    "euler_maruyama_0": (lambda schedule: sde.euler_maruyama(schedule, noise=0.0), 1),
    "dpmpp_sde_multistep_1": (lambda schedule: sde.dpmpp_sde_multistep(schedule, order=1), 1),
    "dpmpp_sde_multistep": (sde.dpmpp_sde_multistep, 2),
    "dpmpp_sde": (sde.dpmpp_sde, 2),
    "dpmpp_sde_0.5": (lambda schedule: sde.dpmpp_sde(schedule, eta=0.5), 2),
    "dpmpp_sde_0": (lambda schedule: sde.dpmpp_sde(schedule, eta=0.0), 2),
}


def final_variances(make, schedule, grids, std, monkeypatch):
    """Exact variance of the last state per grid: a row of the batch for each noise there is.

    Row 0 follows `x_T`; the others start when their noise is drawn, which is 1 there and else 0.
    """
    rows = 1 + 2 * max(len(times) - 1 for times in grids)
    sampler, oracle = make(schedule), gaussian(std).denoiser(schedule)

    def step(state, x_t, t, s, i):
        calls = itertools.count()
        drawn = lambda keys, shape: (  # noqa: E731
            jnp.arange(rows) == 1 + 2 * i + next(calls)
        ).astype(x_t.dtype)[:, None]
        monkeypatch.setattr(sde, "sample_noise", drawn)
        denoise = lambda x_t, t: oracle(x_t, jnp.full(rows, t), {})  # noqa: E731
        return sampler.step(denoise, state, x_t, t, s, keys_of(rows))

    step = jax.jit(step)
    variances = []
    for times in grids:
        scale = jnp.sqrt(schedule.alpha(times[0]) ** 2 * std**2 + schedule.sigma(times[0]) ** 2)
        x = jnp.zeros((rows, 1)).at[0].set(scale)
        state = sampler.init(x)
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            x, state = step(state, x, t, s, jnp.array(i))
        variances.append(float(jnp.sum(x**2)))
    return np.array(variances)


@pytest.mark.parametrize("method", ORDERS)
def test_order_in_law(x64, method, monkeypatch):
    make, order = ORDERS[method]
    schedule, std, steps = SCHEDULES["cosine"], 0.5, np.array([40, 80, 160])
    grids = [time_grids.uniform(int(n), t_max=0.9, t_min=0.1) for n in steps]
    end = jnp.array(0.1)
    exact = schedule.alpha(end) ** 2 * std**2 + schedule.sigma(end) ** 2
    errors = np.abs(final_variances(make, schedule, grids, std, monkeypatch) / exact - 1)
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope + order) < 0.15, (slope, errors)


# Single steps against what was published.


def one_step(sampler, t, s, x_t, outputs, state=()):
    """A step in which the denoiser says each of `outputs` in turn, and the points it is asked at.

    Also noise as of the step's keys, and of those that are folded in for several noises.
    """
    keys, points, outputs = keys_of(len(x_t)), [], iter(outputs)

    def denoise(x, r):
        points.append((np.asarray(x), float(r)))
        return Denoised(next(outputs))

    x_s, state = sampler.step(denoise, state, x_t, jnp.array(t), jnp.array(s), keys)
    folded = [jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(2)]
    noises = [np.asarray(sample_noise(k, x_t.shape[1:])) for k in (keys, *folded)]
    return np.asarray(x_s), points, noises, state


def numbers(num):
    return np.random.default_rng(0).normal(size=(num, 3, 4))


def ratio(schedule, t):
    """`alpha`, and `sigma / alpha`."""
    alpha = float(schedule.alpha(jnp.array(t)))
    return alpha, float(schedule.sigma(jnp.array(t))) / alpha


def ancestral_step(k_t, k_s, eta):
    """k-diffusion's `sigma_down`, `sigma_up`."""
    up = min(k_s, eta * np.sqrt(k_s**2 * (k_t**2 - k_s**2) / k_t**2))
    return np.sqrt(k_s**2 - up**2), up


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("name", ["ddpm", "flow", "edm"])
def test_euler_ancestral_is_ddim(x64, name, eta):
    schedule, (x_t, x_0) = SCHEDULES[name], numbers(2)
    x_s, _, (z, *_), _ = one_step(sde.euler_ancestral(schedule, eta), 0.7, 0.4, x_t, [x_0])
    (alpha, k_t), (alpha_s, k_s) = ratio(schedule, 0.7), ratio(schedule, 0.4)
    down, up = ancestral_step(k_t, k_s, eta)
    y = x_t / alpha
    y = y + (y - x_0) / k_t * (down - k_t) + up * z
    np.testing.assert_allclose(x_s, alpha_s * y, rtol=1e-9, atol=1e-10)


def test_euler_maruyama_is_the_reverse_diffusion_of_vp_and_ve(x64):
    """App. E, Song et al. 2021: `x = (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z` for VP."""
    x_t, x_0 = numbers(2)
    schedule, beta = SCHEDULES["ddpm"], np.linspace(1e-4, 0.02, 1000)[499]
    x_s, _, (z, *_), _ = one_step(sde.euler_maruyama(schedule), 0.5, 0.499, x_t, [x_0])
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[499]
    score = -(x_t - np.sqrt(bar) * x_0) / (1 - bar)
    expected = (2 - np.sqrt(1 - beta)) * x_t + beta * score + np.sqrt(beta) * z
    np.testing.assert_allclose(x_s, expected, rtol=1e-9)
    x_s, _, _, _ = one_step(sde.euler_maruyama(SCHEDULES["edm"]), 0.5, 0.4, x_t, [x_0])
    k_t, k_s = 80 * 0.5**7, 80 * 0.4**7
    step = k_t**2 - k_s**2
    expected = x_t - step * (x_t - x_0) / k_t**2 + np.sqrt(step) * z
    np.testing.assert_allclose(x_s, expected, rtol=1e-9)


def test_dpmpp_sde_multistep_is_sde_dpm_solver_2m(x64):
    """Its second step, in terms of `lambda`."""
    schedule, (x_t, x_0, before) = SCHEDULES["cosine"], numbers(3)
    sampler = sde.dpmpp_sde_multistep(schedule)
    *_, state = one_step(sampler, 0.9, 0.7, x_t, [before], sampler.init(jnp.asarray(x_t)))
    x_s, _, (z, *_), _ = one_step(sampler, 0.7, 0.4, x_t, [x_0], state)
    pairs = [ratio(schedule, r) for r in (0.9, 0.7, 0.4)]
    (_, then), (alpha, now), (alpha_s, after) = ((a, -np.log(k)) for a, k in pairs)
    h, r = after - now, (now - then) / (after - now)
    data = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * before
    sigma, sigma_s = alpha * np.exp(-now), alpha_s * np.exp(-after)
    expected = sigma_s / sigma * np.exp(-h) * x_t + alpha_s * (1 - np.exp(-2 * h)) * data
    expected += sigma_s * np.sqrt(1 - np.exp(-2 * h)) * z
    np.testing.assert_allclose(x_s, expected, rtol=1e-9, atol=1e-10)


def test_dpmpp_sde_multistep_stands_a_step_of_no_length(x64):
    """As in a grid finer than float32 near its end: nothing can be extrapolated over it."""
    schedule, (x_t, first, second) = SCHEDULES["cosine"], numbers(3)
    sampler = sde.dpmpp_sde_multistep(schedule)
    x, _, _, state = one_step(sampler, 0.7, 0.7, x_t, [first], sampler.init(jnp.asarray(x_t)))
    np.testing.assert_allclose(x, x_t, rtol=1e-9)
    x, *_ = one_step(sampler, 0.7, 0.4, x_t, [second], state)
    expected, *_ = one_step(sampler, 0.7, 0.4, x_t, [second], sampler.init(jnp.asarray(x_t)))
    np.testing.assert_allclose(x, expected, rtol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_dpmpp_sde_is_that_of_k_diffusion(x64, eta):
    """In `y = x / alpha`, `k = sigma / alpha`: two ancestral steps of DPM-Solver++(1)."""
    schedule, (x_t, first, second) = SCHEDULES["cosine"], numbers(3)
    sampler = sde.dpmpp_sde(schedule, eta)
    x_s, points, (_, z_1, z_2), _ = one_step(sampler, 0.7, 0.4, x_t, [first, second])
    (alpha, k_t), (alpha_s, k_s) = ratio(schedule, 0.7), ratio(schedule, 0.4)
    x_u, u = points[1]
    alpha_u, k_u = ratio(schedule, u)
    np.testing.assert_allclose(k_u, np.sqrt(k_t * k_s), rtol=1e-9)
    down, up = ancestral_step(k_t, k_u, eta)
    y_u = down / k_t * x_t / alpha - np.expm1(np.log(down / k_t)) * first + up * z_1
    np.testing.assert_allclose(x_u, alpha_u * y_u, rtol=1e-8, atol=1e-8)
    down, up = ancestral_step(k_t, k_s, eta)
    z = (z_1 + z_2) / np.sqrt(2)
    with np.errstate(divide="ignore"):
        y_s = down / k_t * x_t / alpha - np.expm1(np.log(down / k_t)) * second + up * z
    np.testing.assert_allclose(x_s, alpha_s * y_s, rtol=1e-8, atol=1e-8)


def test_churn_is_algorithm_2_of_edm(x64):
    schedule, (x_t, first, second) = SCHEDULES["edm"], numbers(3)
    sampler = churn(schedule, 20, s_churn=6.0, s_min=0.05, s_max=50.0, s_noise=1.01)
    x_s, points, (z, *_), _ = one_step(sampler, 0.7, 0.6, x_t, [first, second])
    k_t, k_s = 80 * 0.7**7, 80 * 0.6**7
    k_h = k_t * (1 + min(6 / 20, np.sqrt(2) - 1))
    x_h = x_t + np.sqrt(k_h**2 - k_t**2) * 1.01 * z
    d = (x_h - first) / k_h
    euler = x_h + (k_s - k_h) * d
    expected = x_h + (k_s - k_h) / 2 * (d + (euler - second) / k_s)
    for (x, t), (y, k) in zip(points, [(x_h, k_h), (euler, k_s)], strict=True):
        np.testing.assert_allclose(80 * t**7, k, rtol=1e-9)
        np.testing.assert_allclose(x, y, rtol=1e-8)
    np.testing.assert_allclose(x_s, expected, rtol=1e-8)


@pytest.mark.parametrize(("t", "s"), [(0.99, 0.98), (0.2, 0.1), (0.7, 0.6)])
def test_churn_outside_its_levels_and_of_0_is_heun(x64, t, s):
    """At 0.99 and 0.2 EDM is above 50 and below 0.05; at 0.7 nothing is churned at all."""
    schedule, (x_t, *outputs) = SCHEDULES["edm"], numbers(3)
    method = churn(schedule, 20, s_churn=0.0 if t == 0.7 else 6.0)
    x_s, *_ = one_step(method, t, s, x_t, outputs)
    expected, *_ = one_step(heun(schedule, "ve"), t, s, x_t, outputs)
    np.testing.assert_allclose(x_s, expected, rtol=1e-9)
    assert method.stochastic == (t != 0.7)


def test_churn_does_not_go_beyond_the_schedule(x64):
    schedule, (x_t, *outputs) = SCHEDULES["edm"], numbers(3)
    _, points, (z, *_), _ = one_step(
        churn(schedule, 20, s_max=np.inf, s_noise=1.0), 0.99, 0.9, x_t, outputs
    )
    assert points[0][1] == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(points[0][0], x_t + 80 * np.sqrt(1 - 0.99**14) * z, rtol=1e-9)


def test_predictor_corrector_is_langevin_after_the_predictor(x64):
    schedule, (x_t, first, second) = SCHEDULES["ddpm"], numbers(3)
    method = sde.predictor_corrector(schedule, ddim(schedule), corrector_steps=1, snr=0.1)
    x_s, points, (_, _, z), _ = one_step(method, 0.7, 0.6, x_t, [first, second])
    predicted, *_ = one_step(ddim(schedule), 0.7, 0.6, x_t, [first])
    np.testing.assert_allclose(points[1][0], predicted, rtol=1e-9)
    alpha, k = ratio(schedule, 0.6)
    score = -(predicted - alpha * second) / (alpha * k) ** 2
    e = 2 * (0.1 * alpha * k) ** 2
    np.testing.assert_allclose(x_s, predicted + e * score + np.sqrt(2 * e) * z, rtol=1e-9)
    assert points[1][1] == pytest.approx(0.6)
    assert method.evaluations == 2


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "restart"])
def test_last_step_says_the_first_estimate_of_x_0(x64, sampler):
    """`sigma_0 = 0`: no noise is left, and no denoiser asked there."""
    schedule, (x_t, x_0) = SCHEDULES["ddpm"], numbers(2)
    method = SAMPLERS[sampler](schedule)
    if sampler == "churn":
        method = churn(schedule, 40, s_min=0.5)
    state = method.init(jnp.asarray(x_t))
    x_s, points, *_ = one_step(method, 0.01, 0.0, x_t, [x_0] * 3, state)
    np.testing.assert_allclose(x_s, x_0, rtol=1e-9, atol=1e-12)
    assert all(t > 0 for _, t in points)


# Restart.


def test_restart_adds_noise_and_forgets(x64):
    schedule, (x_t, x_0) = SCHEDULES["cosine"], numbers(2)
    inner = sde.dpmpp_sde_multistep(schedule)
    method, new = restart(schedule, inner), inner.init(jnp.asarray(x_t))
    x_s, _, _, state = one_step(method, 0.5, 0.4, x_t, [x_0], new)
    expected, _, _, inner_state = one_step(inner, 0.5, 0.4, x_t, [x_0], new)
    np.testing.assert_allclose(x_s, expected, rtol=1e-12)
    np.testing.assert_allclose(state[0], inner_state[0])

    x_s, _, (z, *_), state = one_step(method, 0.4, 0.7, x_t, [x_0], state)
    (alpha, k), (alpha_s, k_s) = ratio(schedule, 0.4), ratio(schedule, 0.7)
    expected = alpha_s * (x_t / alpha + np.sqrt(k_s**2 - k**2) * z)
    np.testing.assert_allclose(x_s, expected, rtol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, state, new)
    assert method.stochastic
    assert restart(schedule, ddim(schedule)).stochastic


def test_restart_times():
    times = np.array([1.0, 0.8, 0.4, 0.2, 0.0])
    expected = [1.0, 0.8, 0.4, 0.2, 0.8, 0.6, 0.4, 0.3, 0.2, 0.8, 0.6, 0.4, 0.3, 0.2, 0.0]
    np.testing.assert_allclose(restart_times(times, 0.25, 0.75, 2, 4), expected)
    # The lowest interval first, then one that overlaps with it.
    both = restart_times(restart_times(times, 0.2, 0.4, 1, 1), 0.4, 1.0, 1, 1)
    np.testing.assert_allclose(both, [1.0, 0.8, 0.4, 1.0, 0.4, 0.2, 0.4, 0.2, 0.0])
    for low, high in [(0.5, 0.5), (0.12, 0.15), (0.3, 1.2), (0.9, 0.95)]:
        with pytest.raises(ValueError, match=r"^(low|high)=.*(no interval|must lie)"):
            restart_times(times, low, high, 1, 3)
