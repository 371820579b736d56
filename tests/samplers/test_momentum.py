"""GHVB: published weights for equal steps, its order, its limits, its final distribution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.corruption import diffuse, sample_noise
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import ghvb, lms
from diffusion_jax.types import Denoised
from tests.oracles import (
    SCHEDULES,
    assert_own_and_right,
    gaussian,
    karras_times,
    keys_of,
    three_components,
)

scalings = pytest.mark.parametrize("scaling", ["ve", "flow"])


@pytest.mark.slow
@pytest.mark.parametrize(("order", "scaling"), [(2, "ve"), (4, "flow")])
def test_samples_are_their_own_and_of_the_right_law(order, scaling):
    assert_own_and_right(lambda schedule: ghvb(schedule, order, 0.7, scaling), karras_times())


def published_weights(order, beta):
    """Of `v_{n+1}, v_n, ..` (Wizadwongsa et al. 2023), order 4 by its operator expansion."""
    return {
        1: np.array([1.0]),
        2: np.array([2 + beta, -(2 - beta)]) / (2 * beta),
        3: np.array([18 + 5 * beta, -(24 - 8 * beta), 6 - beta]) / (12 * beta),
        4: np.array([46 + 9 * beta, -(78 - 19 * beta), 42 - 5 * beta, -(10 - beta)]) / (24 * beta),
    }[order]


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equal_steps_have_the_published_weights(x64, order, beta):
    """In EDM's schedule, `sigma = 80 t^7`; the first steps are of lower order."""
    schedule, levels = SCHEDULES["edm"], np.linspace(3.0, 2.0, 8)
    sampler, outputs = ghvb(schedule, order, beta), np.random.default_rng(0).normal(size=(7, 2, 3))
    x = expected = np.ones((2, 3))
    state, v = sampler.init(jnp.asarray(x)), []
    for i, (k_t, k_s) in enumerate(itertools.pairwise(levels)):
        t, s = (jnp.array((k / 80) ** (1 / 7)) for k in (k_t, k_s))
        denoise = lambda x_t, t, i=i: Denoised(jnp.asarray(outputs[i]))  # noqa: E731
        x, state = sampler.step(denoise, state, x, t, s, keys_of(2))
        eps = (expected - outputs[i]) / k_t
        v.insert(0, (1 - beta) * v[0] + beta * eps if v else eps)
        weights = published_weights(min(order, i + 1), beta)
        expected = expected + (k_s - k_t) * np.tensordot(weights, v[: len(weights)], 1)
        np.testing.assert_allclose(x, expected, rtol=1e-8, err_msg=str(i))


@pytest.mark.slow
@scalings
def test_beta_1_is_the_linear_multistep_method(x64, scaling):
    schedule, times = SCHEDULES["flow"], time_grids.quadratic(12)
    x_T, oracle = sample_noise(keys_of(5, 0), (2,)), three_components().denoiser(schedule)
    run = lambda sampler: sample(oracle, sampler, times, x_T, {}, keys_of(5), keep_every=1)[1]  # noqa: E731
    ours, plain = run(ghvb(schedule, 3, 1.0, scaling)), run(lms(schedule, 3, scaling))
    np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-10)
    smoothed = run(ghvb(schedule, 3, 0.5, scaling))
    assert np.max(np.abs(smoothed - plain)) > 1e-3


def flow_scale(schedule, std, t):
    """The exact flow of `N(0, std^2)` scales `x_t` by ratios of these."""
    return jnp.sqrt(schedule.alpha(t) ** 2 * std**2 + schedule.sigma(t) ** 2)


def errors_after_an_exact_start(make, schedule, steps, warm, std=0.5, t_max=0.8, t_min=0.2):
    """Relative error of `x` at `t_min`, started at `t_max` with `warm` exact steps of history.

    From an empty history the error of the first steps, of lower order, is of order two in all.
    """
    oracle, sampler = gaussian(std).denoiser(schedule), make(schedule)

    @jax.jit
    def step(state, x_t, t, s):
        denoise = lambda x_t, t: oracle(x_t, jnp.full(1, t), {})  # noqa: E731
        return sampler.step(denoise, state, x_t, t, s, keys_of(1))

    errors = []
    for n in steps:
        h = (t_max - t_min) / n
        times = t_max - h * np.arange(-warm, n + 1)
        scales = np.asarray(flow_scale(schedule, std, jnp.asarray(times)))
        x_s, state = None, sampler.init(jnp.zeros((1, 1)))
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            x_t = jnp.full((1, 1), scales[i]) if i <= warm else x_s
            x_s, state = step(state, x_t, t, s)
        errors.append(abs(float(x_s[0, 0]) / scales[-1] - 1))
    return np.array(errors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "beta", "scaling"),
    [*itertools.product([1, 2, 3, 4], [0.6], ["ve", "flow"]), (4, 1.0, "ve")],
)
def test_order_of_convergence(x64, order, beta, scaling):
    steps = np.array([100, 200, 400]) * (1 if order == 4 else 2)
    errors = errors_after_an_exact_start(
        lambda schedule: ghvb(schedule, order, beta, scaling), SCHEDULES["cosine"], steps, warm=24
    )
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope + order) < 0.15, (slope, errors)


def test_order_2_needs_no_exact_start(x64):
    steps = np.array([100, 200, 400])
    errors = errors_after_an_exact_start(
        lambda schedule: ghvb(schedule, 2, 0.6), SCHEDULES["cosine"], steps, warm=0
    )
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope + 2) < 0.15, (slope, errors)


@scalings
def test_to_noise_and_back(scaling):
    """Flow ends at `alpha = 0`, where `ve` has no coordinate."""
    schedule, ends = SCHEDULES["flow"], (0.02, 1.0 if scaling == "flow" else 0.97)
    times = jnp.linspace(*ends, 101)
    x_0 = three_components().sample(jax.random.key(0), 1000)
    x = diffuse(schedule, x_0, sample_noise(keys_of(1000), (2,)), times[0])
    oracle, sampler = three_components().denoiser(schedule), ghvb(schedule, 2, 0.7, scaling)
    run = jax.jit(lambda x, times: sample(oracle, sampler, times, x, {}, keys_of(1000))[0])
    noise = run(x, times)
    assert abs(float(jnp.mean(noise**2)) - 1) < 0.1
    np.testing.assert_allclose(run(noise, times[::-1]), x, atol=0.05)
    assert not sampler.stochastic


def test_momentum_damps_what_diverges(x64):
    """`eps_hat = 15 y` in steps of 0.1: Adams-Bashforth 2 is stable up to 1 for their product."""
    schedule, levels = SCHEDULES["edm"], np.linspace(5.0, 1.0, 41)
    ends = {}
    for beta in (0.2, 1.0):
        sampler, x = ghvb(schedule, 2, beta), jnp.ones((1, 1))
        state = sampler.init(x)
        for k_t, k_s in itertools.pairwise(levels):
            t, s = (jnp.array((k / 80) ** (1 / 7)) for k in (k_t, k_s))
            denoise = lambda x_t, t, k_t=k_t: Denoised(x_t * (1 - 15 * k_t))  # noqa: E731
            x, state = sampler.step(denoise, state, x, t, s, keys_of(1))
        ends[beta] = float(jnp.abs(x)[0, 0])
    assert ends[0.2] < 1 < 1e3 < ends[1.0], ends
