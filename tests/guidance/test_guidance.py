import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.conditioning import drop, unconditional
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.guidance.extrapolation import classifier_free, clip
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, as_it_is, three_components

T = np.array([0.1, 0.4, 0.6, 0.9])
LABELS = {"label": np.array([0, 1, 2, 0])}
NONE = {"label": np.full(4, -1)}


def points():
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))


def exact(name="ddpm"):
    return three_components().denoiser(SCHEDULES[name])


@pytest.mark.parametrize("scale", [1.0, 1, jnp.array(1.0)])
def test_scale_1_is_off_to_the_bit(scale):
    guided = classifier_free(exact(), scale)(points(), T, LABELS)
    np.testing.assert_array_equal(guided.x_0, exact()(points(), T, LABELS).x_0)
    assert not np.allclose(guided.x_0, exact()(points(), T, NONE).x_0)


def test_scale_0_is_unconditional():
    guided = classifier_free(exact(), 0.0)(points(), T, LABELS)
    # Not to the bit: the branch of `lax.cond` is compiled, the right side is not.
    np.testing.assert_allclose(guided.x_0, exact()(points(), T, NONE).x_0, rtol=1e-5)


@pytest.mark.parametrize("name", ["ddpm", "flow"])
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_guidance_is_eq_6_for_every_network(x64, name, kind):
    """`eps = (1 + w) eps(cond) - w eps(none)`, Ho & Salimans 2022, with `scale = 1 + w`.

    The network may say anything: the same formula holds in its own output.
    """
    schedule, prediction, w, x_t = SCHEDULES[name], PREDICTIONS[kind], 2.0, points()
    alpha, sigma = (np.asarray(f(T))[:, None] for f in (schedule.alpha, schedule.sigma))

    def network(given, t, cond):
        x = given / prediction.input_scale(schedule, t)[:, None]
        return prediction.from_x_0(schedule, x, exact(name)(x, t, cond).x_0, t)

    denoise = Gaussian(schedule, prediction, time_input=as_it_is).denoiser(network)
    guided = classifier_free(denoise, 1 + w)(x_t, T, LABELS)

    eps_cond, eps_none = (
        (x_t - alpha * exact(name)(x_t, T, cond).x_0) / sigma for cond in (LABELS, NONE)
    )
    eps = (1 + w) * eps_cond - w * eps_none
    np.testing.assert_allclose(guided.x_0, (x_t - sigma * eps) / alpha, rtol=1e-7)

    given = prediction.network_input(schedule, x_t, T)
    y = (1 + w) * network(given, T, LABELS) - w * network(given, T, NONE)
    np.testing.assert_allclose(guided.x_0, prediction.to_x_0(schedule, x_t, y, T), rtol=1e-7)


def test_another_scale_does_not_compile_again():
    traces = []

    def counted(x_t, t, cond):
        traces.append(1)
        return exact()(x_t, t, cond)

    run = jax.jit(lambda scale: classifier_free(counted, scale)(points(), T, LABELS).x_0)
    results = [run(1.0)]
    first = len(traces)
    assert first > 0
    results += [run(scale) for scale in (0.0, 1.5, 7.5)]
    assert len(traces) == first
    for scale, result in zip((1.0, 0.0, 1.5, 7.5), results, strict=True):
        alone = classifier_free(exact(), scale)(points(), T, LABELS).x_0
        np.testing.assert_allclose(result, alone, rtol=1e-4, atol=1e-5)


def evaluated(program, *args):
    """Images that the denoiser is asked of, in each of its calls: as the program runs."""
    ran = []

    def counted(x_t, t, cond):
        jax.debug.callback(lambda: ran.append(len(x_t)))
        return exact()(x_t, t, cond)

    jax.block_until_ready(jax.jit(functools.partial(program, counted))(*args))
    jax.effects_barrier()
    return ran


@pytest.mark.parametrize(("scale", "calls"), [(1.0, [8]), (2.0, [8]), (0.0, [8])])
def test_a_traced_scale_costs_one_call_of_twice_the_images(scale, calls):
    def program(denoise, scale):
        return classifier_free(denoise, scale)(points(), T, LABELS).x_0

    assert evaluated(program, scale) == calls


def with_variance(x_t, t, cond):
    """A denoiser whose variance tells what conditioning it was given."""
    fraction = jnp.ones_like(x_t) * (cond["label"][:, None] + 1) / 10
    return Denoised(exact()(x_t, t, cond).x_0, fraction)


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_variance_is_the_conditional_one(scale):
    expected = with_variance(points(), T, LABELS).variance
    for guided in (classifier_free(with_variance, scale), clip(with_variance)):
        np.testing.assert_array_equal(guided(points(), T, LABELS).variance, expected)
    assert classifier_free(exact(), scale)(points(), T, LABELS).variance is None


@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_clip_keeps_x_0_in_range(limit):
    outside = lambda x_t, t, cond: Denoised(x_t)  # noqa: E731
    x_t = jnp.array([[-3.0, -0.2], [0.3, 2.0]])
    clipped = clip(outside, limit)(x_t, T[:2], {})
    np.testing.assert_allclose(clipped.x_0, [[-limit, -0.2], [0.3, limit]], rtol=1e-6)
    assert clipped.variance is None


def test_transforms_compose_outside_in():
    """Clipping is of what guidance says, not of what goes into it."""
    scale = 6.0
    free = classifier_free(exact(), scale)(points(), T, LABELS).x_0
    assert np.any(np.abs(free) > 1)
    both = clip(classifier_free(exact(), scale))(points(), T, LABELS).x_0
    np.testing.assert_array_equal(both, np.clip(free, -1, 1))


def test_unconditional_switches_all_off_and_keeps_types():
    off = unconditional({"label": jnp.array([3, 5]), "text": jnp.ones((2, 4), jnp.float32)})
    np.testing.assert_array_equal(off["label"], [-1, -1])
    np.testing.assert_array_equal(off["text"], np.zeros((2, 4)))
    assert off["label"].dtype == jnp.int32
    assert off["text"].dtype == jnp.float32


def test_drop_switches_all_conditioning_of_a_sample_together():
    cond = {"label": jnp.arange(200), "text": jnp.ones((200, 4))}
    dropped = drop(cond, sample_keys(jax.random.key(0), jnp.arange(200)), 0.5)
    off = np.asarray(dropped["label"]) == -1
    assert 50 < off.sum() < 150
    np.testing.assert_array_equal(np.all(dropped["text"] == 0, axis=1), off)
    np.testing.assert_array_equal(np.all(dropped["text"] == 1, axis=1), ~off)
    part = drop(
        {"label": jnp.arange(100, 200)},
        sample_keys(jax.random.key(0), jnp.arange(100, 200)),
        0.5,
    )
    np.testing.assert_array_equal(part["label"], dropped["label"][100:])
