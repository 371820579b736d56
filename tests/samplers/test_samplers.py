"""Ancestral sampling and DDIM compared with their published steps, and the sampling loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.conditioning import unconditional
from diffusion_jax.diffusion.corruption import sample_keys, sample_noise
from diffusion_jax.guidance.extrapolation import classifier_free
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun, pndm
from diffusion_jax.samplers.sde import ancestral
from diffusion_jax.types import Denoised, Sampler
from tests.oracles import CLEAN, SCHEDULES, gaussian, keys_of, three_components
from tests.trajectories import Table, values

SAMPLERS = {
    "ancestral_small": functools.partial(ancestral, variance="small"),
    "ancestral_large": functools.partial(ancestral, variance="large"),
    "ddim_0": functools.partial(ddim, eta=0.0),
    "ddim_0.5": functools.partial(ddim, eta=0.5),
    "ddim_1": functools.partial(ddim, eta=1.0),
}
all_samplers = pytest.mark.parametrize("sampler", SAMPLERS)


def oracle_run(schedule, sampler, times, num=4, std=0.5, keep_every=0, start=0):
    """A run on `N(0, std^2)` in two dimensions, samples `start .. start + num`."""
    indices = jnp.arange(start, start + num)
    x_T = sample_noise(sample_keys(jax.random.key(0), indices), (2,))
    run = jax.jit(
        lambda x_T, keys: sample(
            gaussian(std, 2).denoiser(schedule), sampler, times, x_T, {}, keys, keep_every
        )
    )
    return run(x_T, sample_keys(jax.random.key(1), indices))


@functools.cache
def states_from_table(sampler):
    """`(alphas, sigmas) -> states`: one program for all schedules, by their values at 20 times."""
    times = time_grids.uniform(20)

    def run(alphas, sigmas):
        schedule = Table(times[::-1], alphas[::-1], sigmas[::-1])
        return oracle_run(schedule, SAMPLERS[sampler](schedule), times, keep_every=1)[1]

    return jax.jit(run)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_of_eta_1_is_ancestral(x64, name):
    """Step for step with the same noise."""
    known = values(name, np.asarray(time_grids.uniform(20)))
    one, other = (states_from_table(s)(*known) for s in ("ddim_1", "ancestral_small"))
    np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def ddpm_step(sampler, i, x_t, x_0_hat, fraction=None):
    denoise = lambda x_t, t: Denoised(x_0_hat, fraction)  # noqa: E731
    keys = sample_keys(jax.random.key(5), jnp.arange(len(x_t)))
    t, s = jnp.array(i / 1000), jnp.array((i - 1) / 1000)
    return sampler.step(denoise, (), x_t, t, s, keys)[0], sample_noise(keys, x_t.shape[1:])


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("i", [1, 2, 400, 1000])
def test_ancestral_step_is_eq_11_of_ddpm(x64, i, variance):
    """`mu = (x_t - beta_t eps / sqrt(1 - alpha_bar_t)) / sqrt(1 - beta_t)`, Ho et al. 2020."""
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bars = np.concatenate([[1.0], np.cumprod(1 - betas)])
    beta, alpha_bar, before = betas[i - 1], alpha_bars[i], alpha_bars[i - 1]
    x_t, eps = np.random.default_rng(0).normal(size=(2, 3, 4))
    x_0_hat = (x_t - np.sqrt(1 - alpha_bar) * eps) / np.sqrt(alpha_bar)
    x_s, z = ddpm_step(ancestral(SCHEDULES["ddpm"], variance), i, x_t, x_0_hat)
    mean = (x_t - beta / np.sqrt(1 - alpha_bar) * eps) / np.sqrt(1 - beta)
    std = np.sqrt({"large": beta, "small": (1 - before) / (1 - alpha_bar) * beta}[variance])
    expected = mean + (std * z if i > 1 else 0)  # Algorithm 2: z = 0 if t = 1
    np.testing.assert_allclose(x_s, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_step_is_eqs_12_and_16(x64, eta):
    """Song et al. 2021, whose alpha is DDPM's alpha_bar; a step over many entries."""
    alpha_bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    now, then = alpha_bars[699], alpha_bars[199]
    x_t, x_0_hat = np.random.default_rng(0).normal(size=(2, 3, 4))
    std = eta * np.sqrt((1 - then) / (1 - now)) * np.sqrt(1 - now / then)
    eps = (x_t - np.sqrt(now) * x_0_hat) / np.sqrt(1 - now)
    keys = sample_keys(jax.random.key(5), jnp.arange(3))
    z = np.asarray(sample_noise(keys, (4,)))
    expected = np.sqrt(then) * x_0_hat + np.sqrt(1 - then - std**2) * eps + std * z
    denoise = lambda x_t, t: Denoised(x_0_hat)  # noqa: E731
    step = ddim(SCHEDULES["ddpm"], eta).step
    x_s, _ = step(denoise, (), x_t, jnp.array(0.7), jnp.array(0.2), keys)
    np.testing.assert_allclose(x_s, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("i", [1, 2, 400, 1000])
@pytest.mark.parametrize(("fraction", "same_as"), [(0.0, "small"), (1.0, "large")])
def test_learned_variance_ends_at_small_and_large(x64, i, fraction, same_as):
    x_t, x_0_hat = np.random.default_rng(0).normal(size=(2, 3, 4))
    schedule = SCHEDULES["ddpm"]
    learned, _ = ddpm_step(
        ancestral(schedule, "learned"), i, x_t, x_0_hat, jnp.full_like(x_t, fraction)
    )
    fixed, _ = ddpm_step(ancestral(schedule, same_as), i, x_t, x_0_hat)
    np.testing.assert_allclose(learned, fixed, rtol=1e-9)


def test_learned_variance_of_each_pixel_is_its_own(x64):
    x_t, x_0_hat = np.random.default_rng(0).normal(size=(2, 1, 3))
    schedule, fraction = SCHEDULES["ddpm"], np.array([[0.0, 0.5, 1.0]])
    mean, z = ddpm_step(ancestral(schedule, "small"), 500, x_t, x_0_hat)
    x_s, _ = ddpm_step(ancestral(schedule, "learned"), 500, x_t, x_0_hat, fraction)
    small, large = (schedule.sigma(t) ** 2 for t in (jnp.array(0.499), jnp.array(0.5)))
    beta = np.linspace(1e-4, 0.02, 1000)[499]
    tilde = beta * small / large
    mean = mean - np.sqrt(tilde) * z
    std = np.exp(0.5 * (fraction * np.log(beta) + (1 - fraction) * np.log(tilde)))
    np.testing.assert_allclose(x_s, mean + std * z, rtol=1e-9)


def test_learned_variance_needs_one():
    x = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="learned"):
        ddpm_step(ancestral(SCHEDULES["ddpm"], "learned"), 5, x, x)


@pytest.mark.parametrize("name", CLEAN)
@all_samplers
def test_last_step_returns_x_0_hat(x64, sampler, name):
    schedule = SCHEDULES[name]
    x_t, x_0_hat = np.random.default_rng(0).normal(size=(2, 3, 4))
    x_0, _ = ddpm_step(SAMPLERS[sampler](schedule), 1, x_t, x_0_hat)
    np.testing.assert_allclose(x_0, x_0_hat, rtol=1e-12)


# The loop.


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_deterministic_samplers_invert(sampler):
    method, times = SAMPLERS[sampler](SCHEDULES["cosine"]), jnp.linspace(0.1, 0.9, 5)
    x, keys = jnp.ones((1, 2)), sample_keys(jax.random.key(0), jnp.arange(1))
    arguments = gaussian(0.5, 2).denoiser(SCHEDULES["cosine"]), method, times, x, {}, keys
    if sampler == "ddim_0":
        assert np.all(np.isfinite(sample(*arguments)[0]))
    else:
        with pytest.raises(ValueError, match=r"cannot run from t = 0\.1 up to 0\.9"):
            sample(*arguments)


@pytest.mark.parametrize("make", [heun, pndm])
def test_a_run_of_no_steps_stays_where_it_began(make):
    x, kept = oracle_run(SCHEDULES["ddpm"], make(SCHEDULES["ddpm"]), jnp.array([0.5]), keep_every=1)
    np.testing.assert_array_equal(kept[0], x)
    assert len(kept) == 1


def test_a_sample_is_the_same_in_every_batch():
    method, times = ancestral(SCHEDULES["ddpm"]), time_grids.uniform(20)
    batches = {num: oracle_run(SCHEDULES["ddpm"], method, times, num)[0] for num in (1, 7, 64)}
    np.testing.assert_allclose(batches[1], batches[64][:1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batches[7], batches[64][:7], rtol=1e-4, atol=1e-5)
    part = oracle_run(SCHEDULES["ddpm"], method, times, 7, start=40)[0]
    np.testing.assert_allclose(part, batches[64][40:47], rtol=1e-4, atol=1e-5)
    assert len(np.unique(batches[64])) == 128


def noise_sampler():
    """A sampler whose states are its noise, and which checks what the loop hands it."""

    def step(denoise, state, x_t, t, s, keys):
        assert t.shape == s.shape == ()
        noise = sample_noise(keys, x_t.shape[1:])
        return noise, (state[0] + 1, state[1].at[state[0]].set(jnp.stack([t, s])))

    return Sampler(init=lambda x_T: (0, jnp.zeros((10, 2))), step=step)


def run_noise_sampler(num, keep_every=1):
    keys = sample_keys(jax.random.key(2), jnp.arange(num))
    denoise = lambda x_t, t, cond: Denoised(x_t)  # noqa: E731
    return sample(
        denoise, noise_sampler(), time_grids.uniform(10), jnp.ones((num, 3)), {}, keys, keep_every
    )


def test_noise_of_every_step_is_bit_identical_in_every_batch():
    kept = {num: run_noise_sampler(num)[1] for num in (1, 7, 64)}
    np.testing.assert_array_equal(kept[1], kept[64][:, :1])
    np.testing.assert_array_equal(kept[7], kept[64][:, :7])
    # No noise is used twice, over steps or samples.
    assert len(np.unique(kept[64][1:])) == 10 * 64 * 3


def python_loop(denoiser, sampler, times, x, cond, keys):
    """What `sample` says it does, as a loop that keeps all."""
    states, state = [x], sampler.init(x)
    for i in range(len(times) - 1):
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        denoise = lambda x_t, t: denoiser(x_t, jnp.full(len(x_t), t), cond)  # noqa: E731
        x, state = sampler.step(denoise, state, x, times[i], times[i + 1], step_keys)
        states.append(x)
    return states


KEPT = {
    1: range(11),
    2: (0, 2, 4, 6, 8, 10),
    3: (0, 3, 6, 9, 10),
    10: (0, 10),
    25: (0, 10),
}
"""Which of 11 states are kept, by `keep_every`."""


@pytest.mark.slow
def test_kept_states_are_those_of_an_explicit_loop(x64):
    schedule, times = SCHEDULES["cosine"], time_grids.uniform(10)
    keys = sample_keys(jax.random.key(1), jnp.arange(3))
    x_T = sample_noise(sample_keys(jax.random.key(0), jnp.arange(3)), (2,))
    exact = three_components().denoiser(schedule)
    arguments = exact, ancestral(schedule), times, x_T, {"label": jnp.array([0, 2, -1])}, keys
    states = python_loop(*arguments)
    for keep_every, places in KEPT.items():
        x, kept = sample(*arguments, keep_every=keep_every)
        np.testing.assert_allclose(x, states[-1], rtol=1e-9)
        np.testing.assert_allclose(kept, np.stack([states[i] for i in places]), rtol=1e-9)
    x, kept = sample(*arguments)
    np.testing.assert_allclose(x, states[-1], rtol=1e-9)
    assert kept is None


def test_state_is_carried_and_times_are_handed_in_order():
    """A method with memory (multistep) sees its own state and each pair (t, s) once."""
    seen = {}

    def step(denoise, state, x_t, t, s, keys):
        return x_t + state * (t - s) + 10 * denoise(x_t, t).x_0, state + 1

    def denoise(x_t, t, cond):
        seen["shapes"] = t.shape, cond["label"].shape
        return Denoised(t[:, None] * jnp.ones_like(x_t))

    times = jnp.array([1.0, 0.7, 0.3, 0.0])
    keys = sample_keys(jax.random.key(0), jnp.arange(2))
    sampler = Sampler(init=lambda x_T: x_T[:1, :1] * 0 + 1, step=step)
    x, _ = sample(denoise, sampler, times, jnp.zeros((2, 3)), {"label": jnp.arange(2)}, keys)
    expected = 1 * 0.3 + 2 * 0.4 + 3 * 0.3 + 10 * (1.0 + 0.7 + 0.3)
    np.testing.assert_allclose(x, np.full((2, 3), expected), rtol=1e-6)
    assert seen["shapes"] == ((2,), (2,))


# The time that a step goes to.


def conditions_seen(sampler, times, guide=lambda denoise: denoise, **settings):
    """`(t, cond)` of each call of the network, of 3 samples with labels."""
    seen = []

    def network(x_t, t, cond):
        seen.append((float(t[0]), {name: np.asarray(value) for name, value in cond.items()}))
        return Denoised(0.5 * x_t)

    x_T, cond = jnp.ones((3, 2)), {"label": jnp.arange(3)}
    with jax.disable_jit():
        sample(guide(network), sampler, jnp.asarray(times), x_T, cond, keys_of(3), **settings)
    return seen


TIMES = np.array([1.0, 0.7, 0.45, 0.1], np.float32)


@pytest.mark.parametrize("make", [ddim, heun])
def test_networks_are_told_the_time_that_a_step_goes_to(make):
    """In all calls of a step, wherever it looks; with the conditioning that there is."""
    sampler = make(SCHEDULES["cosine"])
    seen = conditions_seen(sampler, TIMES, tells_until=True)
    until = np.repeat(TIMES[1:], sampler.evaluations)
    assert len(seen) == len(until)
    for (_, cond), s in zip(seen, until, strict=True):
        np.testing.assert_array_equal(cond["until"], np.full(3, s))
        np.testing.assert_array_equal(cond["label"], [0, 1, 2])
    if make is ddim:
        np.testing.assert_array_equal([t for t, _ in seen], TIMES[:-1])


def test_networks_are_not_told_it_unless_asked_for():
    for settings in ({}, {"tells_until": False}):
        for _, cond in conditions_seen(ddim(SCHEDULES["cosine"]), TIMES, **settings):
            assert set(cond) == {"label"}


def test_guidance_tells_both_halves_the_same_time():
    guide = lambda denoise: classifier_free(denoise, 3.0)  # noqa: E731
    seen = conditions_seen(ddim(SCHEDULES["cosine"]), TIMES, guide, tells_until=True)
    assert len(seen) == 3
    for (_, cond), s in zip(seen, TIMES[1:], strict=True):
        np.testing.assert_array_equal(cond["until"], np.full(6, s))
        np.testing.assert_array_equal(cond["label"], [0, -1, 1, -1, 2, -1])


def test_the_time_that_a_step_goes_to_is_not_switched_off():
    cond = {"until": jnp.array([0.3, 0.7]), "label": jnp.array([1, 2]), "vector": jnp.ones((2, 1))}
    off = unconditional(cond)
    np.testing.assert_array_equal(off["until"], cond["until"])
    np.testing.assert_array_equal(off["label"], [-1, -1])
    np.testing.assert_array_equal(off["vector"], np.zeros((2, 1)))


def test_with_it_ddims_step_is_the_exact_step_of_a_flow_map(x64):
    """Of `N(0, std^2)`, in one compiled program.

    The flow's scale from t to s is `n_s / n_t` with `n^2 = alpha^2 std^2 + sigma^2`, and DDIM's
    step has it where `x_0_hat` is what solves it: any number of steps gives the same.
    """
    schedule, std, x_T = SCHEDULES["cosine"], 0.5, jnp.array([[0.3, -1.2], [0.8, 0.1]])

    def values(t):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return alpha, sigma, jnp.hypot(alpha * std, sigma)

    def flow_map(x_t, t, cond):
        (alpha, sigma, n), (alpha_s, sigma_s, n_s) = values(t), values(cond["until"])
        ratio = sigma_s / sigma
        return Denoised((n_s / n - ratio) / (alpha_s - ratio * alpha) * x_t)

    @functools.partial(jax.jit, static_argnums=1)
    def run(times, keep_every):
        steps = flow_map, ddim(schedule), times, x_T, {}, keys_of(2), keep_every
        return sample(*steps, tells_until=True)

    times = jnp.array([0.95, 0.7, 0.45, 0.05])
    found, kept = run(times, 1)
    exact = x_T * (values(times)[2] / values(times)[2][0])[:, None]
    np.testing.assert_allclose(kept, exact, rtol=1e-9)
    at_once, _ = run(times[jnp.array([0, 3])], 0)
    np.testing.assert_allclose(at_once, found, rtol=1e-9)
