"""The Gaussian process: its noise, and the inputs of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import TIME_INPUTS, Gaussian, gaussian, thousands
from tests.oracles import SCHEDULES, keys_of, times_of

all_schedules = pytest.mark.parametrize("name", SCHEDULES)
NUM = 5000


def process(name, kind="v", **settings):
    return Gaussian(SCHEDULES[name], PREDICTIONS[kind], **settings)


def assert_normal(x, mean, std):
    """Mean and standard deviation within 5 standard errors, and the law by its distance."""
    z = (np.asarray(x, np.float64) - mean) / std
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)
    assert stats.kstest(z.ravel(), stats.norm.cdf).pvalue > 1e-6  # fixed key


@all_schedules
def test_the_prior_has_the_standard_deviation_sigma(x64, name):
    keys = keys_of(NUM)
    for t in (1.0, 0.3):
        x = process(name).prior(keys, (2,), jnp.array(t))
        assert x.shape == (NUM, 2)
        assert_normal(x, 0.0, float(SCHEDULES[name].sigma(jnp.array(t))))
    np.testing.assert_array_equal(process(name).prior(keys[7:9], (2,), jnp.array(t)), x[7:9])


@all_schedules
def test_corrupted_data_have_the_mean_and_the_noise_of_their_times(x64, name):
    """Of samples at times of their own."""
    schedule, data = SCHEDULES[name], np.array([1.5, -0.7])
    t = times_of(name)
    each = np.repeat(t, NUM)
    x_0 = np.broadcast_to(data, (len(each), 2))
    x_t = process(name).corrupt(x_0, jnp.asarray(each), keys_of(len(each)))
    for i, part in enumerate(np.split(np.asarray(x_t), len(t))):
        alpha, sigma = float(schedule.alpha(t[i])), float(schedule.sigma(t[i]))
        assert_normal(part, alpha * data, sigma)


@all_schedules
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_network_is_told_a_thousand_t_unless_another_way(x64, name, kind):
    x_t, t = np.random.default_rng(0).normal(size=(6, 3)), jnp.asarray(times_of(name))
    seen = []

    def network(x, time, cond):
        seen.append((np.asarray(x), np.asarray(time)))
        return jnp.zeros_like(x)

    for tell in (thousands, lambda schedule, t: -2 * t):
        process(name, kind, time_input=tell).denoiser(network)(x_t, t, {})
    process(name, kind).denoiser(network)(x_t, t, {})
    scale = 1.0
    if kind == "edm":  # c_in of Table 1, Karras et al. 2022, for data of deviation 0.5
        alpha, sigma = (np.asarray(f(t)) for f in (SCHEDULES[name].alpha, SCHEDULES[name].sigma))
        scale = 1 / np.sqrt(alpha**2 * 0.25 + sigma**2)[:, None]
    for (x, time), factor in zip(seen, (1000, -2, 1000), strict=True):
        np.testing.assert_allclose(x, scale * x_t, rtol=1e-9)
        np.testing.assert_allclose(time, factor * np.asarray(t), rtol=1e-12)


def test_the_last_channels_are_a_variance_only_where_one_is_learned():
    y, of = jnp.array([[[1.0, 2.0, -1.0, 0.5]]]), (jnp.zeros((1, 1, 2)), jnp.ones(1), {})
    whole, none = process("flow").predict(lambda *_: y, *of)
    np.testing.assert_array_equal(whole, y)
    assert none is None
    half, fraction = process("flow", learned_variance=True).predict(lambda *_: y, *of)
    np.testing.assert_array_equal(half, [[[1.0, 2.0]]])
    np.testing.assert_array_equal(fraction, [[[0.0, 0.75]]])


@all_schedules
@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("learned_variance", [False, True])
def test_a_network_of_residuals_sees_what_the_data_differ_in_and_predicts_it(
    x64, name, kind, learned_variance
):
    """It denoises `x_0 - c`, diffused by the same noise; a picture may have further channels."""
    rng, t = np.random.default_rng(0), jnp.asarray(times_of(name))
    x_0, c, eps = (jnp.asarray(rng.normal(size=(len(t), 4, 4, 3))) for _ in range(3))
    schedule, prediction = SCHEDULES[name], PREDICTIONS[kind]
    alpha, sigma = (np.asarray(f(t))[:, None, None, None] for f in (schedule.alpha, schedule.sigma))

    def network(x, time, cond):
        np.testing.assert_allclose(
            x, prediction.network_input(schedule, alpha * (x_0 - c) + sigma * eps, t), atol=1e-8
        )
        y = prediction.target(schedule, x_0 - c, eps, t)
        return jnp.concatenate([y, y], -1) if learned_variance else y

    own = process(name, kind, residual=True, learned_variance=learned_variance)
    given = {"image": jnp.concatenate([c, jnp.ones((len(t), 4, 4, 1))], -1)}
    found = own.denoiser(network)(alpha * x_0 + sigma * eps, t, given)
    np.testing.assert_allclose(found.x_0, x_0, rtol=1e-6, atol=1e-6)


def test_the_time_as_the_place_in_a_published_table(x64):
    """Entry `i` of DDPM's 1,000 is the time `(i + 1) / 1000`."""
    i, schedule = np.arange(1000), SCHEDULES["ddpm"]
    t = jnp.asarray((i + 1) / 1000)
    alpha_bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(schedule.alpha(t) ** 2, alpha_bars, rtol=1e-9)
    np.testing.assert_allclose(TIME_INPUTS["table_index"](schedule, t), i, atol=1e-9)
    np.testing.assert_allclose(TIME_INPUTS["thousands"](schedule, t), i + 1, rtol=1e-12)


@all_schedules
def test_the_time_as_the_log_of_the_noise(x64, name):
    """Table 1, Karras et al. 2022: `ln(sigma) / 4`, at `sigma / alpha` of other schedules."""
    schedule, t = SCHEDULES[name], jnp.asarray(times_of(name))
    expected = np.log(np.asarray(schedule.sigma(t)) / np.asarray(schedule.alpha(t))) / 4
    found = TIME_INPUTS["log_noise"](schedule, t)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    ends = np.asarray(TIME_INPUTS["log_noise"](schedule, jnp.array([0.0, 1.0])))
    assert (np.abs(ends) <= 5).all()  # also where there is no noise, or no data


def test_log_noise_of_edms_own_schedule_is_that_of_sigma(x64):
    schedule, t = SCHEDULES["edm"], jnp.linspace(0.05, 1.0, 20)
    found = TIME_INPUTS["log_noise"](schedule, t)
    np.testing.assert_allclose(found, np.log(schedule.sigma(t)) / 4, rtol=1e-9, atol=1e-12)


def test_methods_of_the_gaussian_process_refuse_any_other():
    own = process("flow")
    assert gaussian(own) is own
    with pytest.raises(ValueError, match="needs the Gaussian process, not"):
        gaussian(object())


def test_noise_is_its_own_for_each_key():
    x = process("flow").prior(keys_of(50), (3,), jnp.ones(()))
    y = process("flow").corrupt(jnp.zeros((50, 3)), jnp.ones(50), keys_of(50, seed=2))
    assert len(np.unique(np.stack([x, y]))) == 2 * 50 * 3
    assert jax.tree.leaves(x)[0].dtype == jnp.float32
