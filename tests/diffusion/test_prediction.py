import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.prediction import PREDICTIONS, edm, split_variance
from diffusion_jax.diffusion.process import Gaussian
from tests.oracles import SCHEDULES, as_it_is, times_of

all_schedules = pytest.mark.parametrize("name", SCHEDULES)
all_predictions = pytest.mark.parametrize("kind", PREDICTIONS)


@functools.cache
def case(name):
    """Times, data and noise `[B, 3]`, and the `x_t` of the definition."""
    schedule, rng = SCHEDULES[name], np.random.default_rng(0)
    t = times_of(name)
    x_0, eps = rng.normal(size=(2, len(t), 3))
    alpha, sigma = (np.asarray(f(t))[:, None] for f in (schedule.alpha, schedule.sigma))
    return schedule, t, x_0, eps, alpha, sigma, alpha * x_0 + sigma * eps


def textbook(kind, name):
    """What a network of each type is trained to say, by its published definition."""
    schedule, t, x_0, eps, alpha, sigma, x_t = case(name)
    if kind == "eps":
        return (x_t - alpha * x_0) / sigma
    if kind == "x0":
        return x_0
    if kind == "v":
        return alpha * eps - sigma * x_0
    if kind == "edm":  # Eq. 8 and Table 1, Karras et al. 2022, at sigma / alpha and x_t / alpha
        ratio, data = sigma / alpha, 0.5
        c_skip = data**2 / (ratio**2 + data**2)
        c_out = ratio * data / np.sqrt(ratio**2 + data**2)
        return (x_0 - c_skip * x_t / alpha) / c_out
    if kind == "velocity":
        path = lambda t: schedule.alpha(t)[:, None] * x_0 + schedule.sigma(t)[:, None] * eps  # noqa: E731
        return (path(t + 1e-7) - path(t - 1e-7)) / 2e-7
    log_density = lambda x: -jnp.sum((x - alpha * x_0) ** 2 / (2 * sigma**2))  # noqa: E731
    return jax.grad(log_density)(jnp.asarray(x_t))


@all_schedules
@all_predictions
def test_target_is_the_textbook_definition(x64, name, kind):
    schedule, t, x_0, eps, _, _, x_t = case(name)
    expected = textbook(kind, name)
    rtol = 1e-5 if kind == "velocity" else 1e-9  # the finite difference has an error of its own
    target = PREDICTIONS[kind].target(schedule, x_0, eps, t)
    np.testing.assert_allclose(target, expected, rtol=rtol, atol=rtol)
    said = PREDICTIONS[kind].from_x_0(schedule, x_t, x_0, t)
    np.testing.assert_allclose(said, expected, rtol=rtol, atol=rtol)


@all_schedules
@all_predictions
def test_x_0_is_found_from_the_textbook_definition(x64, name, kind):
    schedule, t, x_0, _, _, _, x_t = case(name)
    found = PREDICTIONS[kind].to_x_0(schedule, x_t, textbook(kind, name), t)
    np.testing.assert_allclose(found, x_0, atol=1e-5 if kind == "velocity" else 1e-9)


@all_schedules
@all_predictions
def test_round_trip_of_any_x_0_hat(x64, name, kind):
    """Also where `x_0_hat` is not the data `x_t` was made of."""
    schedule, t, _, _, _, _, x_t = case(name)
    x_0_hat = np.random.default_rng(1).normal(size=x_t.shape)
    y = PREDICTIONS[kind].from_x_0(schedule, x_t, x_0_hat, t)
    np.testing.assert_allclose(PREDICTIONS[kind].to_x_0(schedule, x_t, y, t), x_0_hat, atol=1e-9)


@all_schedules
@all_predictions
def test_error_is_scaled_by_the_determinant(x64, name, kind):
    """`y - y_hat = -(d_t / sigma_t) (x_0 - x_0_hat)`, on which every loss rests."""
    schedule, t, x_0, _, _, sigma, x_t = case(name)
    prediction = PREDICTIONS[kind]
    x_0_hat = x_0 + 1
    error = prediction.from_x_0(schedule, x_t, x_0_hat, t) - prediction.from_x_0(
        schedule, x_t, x_0, t
    )
    scale = np.asarray(prediction.determinant(schedule, t))[:, None]
    np.testing.assert_allclose(error, -scale / sigma * np.ones_like(x_0), rtol=1e-7)


@all_schedules
@pytest.mark.parametrize("data", [0.5, 1.3])
def test_edm_has_unit_variance_on_both_sides_of_the_network(x64, name, data):
    """For data of standard deviation `data`: App. B.6, Karras et al. 2022."""
    schedule, t, _, _, alpha, sigma, _ = case(name)
    prediction = edm(data)
    p, q = (np.asarray(c) for c in prediction.coefficients(schedule, t))
    np.testing.assert_allclose(p**2 * data**2 + q**2, 1, rtol=1e-12)
    scale = np.asarray(prediction.input_scale(schedule, t))
    std = np.sqrt(alpha**2 * data**2 + sigma**2)[:, 0]
    np.testing.assert_allclose(scale * std, 1, rtol=1e-12)


def test_edm_of_unit_data_that_keep_their_variance_is_v(x64):
    schedule, t, x_0, eps, *_ = case("cosine")
    v = PREDICTIONS["v"].target(schedule, x_0, eps, t)
    np.testing.assert_allclose(edm(1.0).target(schedule, x_0, eps, t), -v, rtol=1e-12)
    np.testing.assert_allclose(edm(1.0).input_scale(schedule, t), 1, rtol=1e-12)


@all_predictions
def test_float32_is_enough_for_images(kind):
    """Round trip in float32 at the least time trained on: to a quarter of a grey level."""
    schedule = SCHEDULES["ddpm"]
    t = jnp.array([1e-4, 1e-3, 0.1, 0.5])
    x_0, eps = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    x_t = schedule.alpha(t)[:, None] * x_0 + schedule.sigma(t)[:, None] * eps
    y = PREDICTIONS[kind].target(schedule, x_0, eps, t)
    found = PREDICTIONS[kind].to_x_0(schedule, x_t, y, t)
    np.testing.assert_allclose(found, x_0, atol=0.25 / 127.5)


@all_predictions
@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 4, 4, 3)])
def test_every_shape_has_one_time_per_sample(x64, kind, shape):
    """An image batch is done sample by sample: no broadcast of `t` along a wrong axis."""
    schedule, t = SCHEDULES["ddpm"], jnp.array([0.2, 0.7])
    x_t, y = np.random.default_rng(0).normal(size=(2, *shape))
    together = PREDICTIONS[kind].to_x_0(schedule, x_t, y, t)
    for i in range(2):
        alone = PREDICTIONS[kind].to_x_0(schedule, x_t[i], y[i], t[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-12)


def test_split_variance_takes_channels_apart():
    y, fraction = split_variance(jnp.array([[[1.0, 2.0, -1.0, 0.5]]]))
    np.testing.assert_array_equal(y, [[[1.0, 2.0]]])
    np.testing.assert_array_equal(fraction, [[[0.0, 0.75]]])


@all_predictions
def test_denoiser_finds_x_0_and_hands_the_variance_through(x64, kind):
    schedule, t, x_0, _, _, _, x_t = case("ddpm")

    def network(x_t, t, cond):
        x_t = x_t / np.asarray(PREDICTIONS[kind].input_scale(schedule, t))[:, None]
        y = PREDICTIONS[kind].from_x_0(schedule, x_t, cond["x_0"], t)
        return jnp.concatenate([y, jnp.full_like(y, -0.5)], axis=-1)

    process = Gaussian(schedule, PREDICTIONS[kind], learned_variance=True, time_input=as_it_is)
    x_0_hat, fraction = process.denoiser(network)(x_t, t, {"x_0": x_0})
    np.testing.assert_allclose(x_0_hat, x_0, atol=1e-9)
    np.testing.assert_array_equal(fraction, np.full_like(x_0, 0.25))

    plain = Gaussian(schedule, PREDICTIONS[kind], time_input=as_it_is)
    denoised = plain.denoiser(lambda *args: network(*args)[..., :3])(x_t, t, {"x_0": x_0})
    np.testing.assert_allclose(denoised.x_0, x_0, atol=1e-9)
    assert denoised.variance is None
