"""DDRM, RePaint and DiffPIR's step: their published equations, and where they are exact."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.restoration.ddrm import ddrm
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.restoration.renoising import renoising
from diffusion_jax.restoration.repaint import repaint
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.restart import restart
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, keys_of
from tests.restoration.normal import COV, MEAN, Dense, assert_normal, normal, observed, outcome

ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]


def known_first(num, y):
    """Of vectors of two entries the first is known, without noise."""
    return observed(Mask(jnp.tile(jnp.array([[1.0, 0.0]]), (num, 1))), [y, 0.0], 0.0, num)


def test_ddrm_is_equation_8(x64):
    """Coordinate by coordinate, with values and noises for each of its three cases."""
    schedule, values, eta, eta_b = SCHEDULES["flow"], np.array([2.0, 0.5, 0.1, 0.0]), 0.6, 0.7
    noises, rng = np.array([0.0, 0.2, 1.5]), np.random.default_rng(1)
    x_t, y = rng.normal(size=(2, 3, 4))
    observation = Observation(
        jnp.array(y), Dense(jnp.array(ROTATION), jnp.array(values)), jnp.array(noises)
    )
    t, s, keys = jnp.array(0.7), jnp.array(0.4), keys_of(3)
    sampler = ddrm(schedule, observation, eta, eta_b)
    found, _ = sampler.step(lambda x, t: Denoised(jnp.tanh(x)), (), jnp.array(x_t), t, s, keys)

    z = np.asarray(sample_noise(keys, (4,))) @ ROTATION
    x_0, y, cases = np.tanh(x_t) @ ROTATION, y @ ROTATION, set()
    eps, level, expected = (x_t - 0.3 * np.tanh(x_t)) @ ROTATION / 0.7, 0.4 / 0.6, np.zeros((3, 4))
    for b in range(3):
        for i in range(4):
            rest, new = np.sqrt(1 - eta**2) * level, eta * level * z[b, i]
            if values[i] == 0:
                expected[b, i], case = x_0[b, i] + rest * eps[b, i] + new, 0
            elif level < noises[b] / values[i]:
                off = (y[b, i] / values[i] - x_0[b, i]) / (noises[b] / values[i])
                expected[b, i], case = x_0[b, i] + rest * off + new, 1
            else:
                mean = (1 - eta_b) * x_0[b, i] + eta_b * y[b, i] / values[i]
                std = np.sqrt(level**2 - noises[b] ** 2 / values[i] ** 2 * eta_b**2)
                expected[b, i], case = mean + std * z[b, i], 2
            cases.add(case)
    assert cases == {0, 1, 2}
    np.testing.assert_allclose(found, 0.6 * expected @ ROTATION.T, rtol=1e-9, atol=1e-9)


def test_ddrm_is_exact_without_noise_where_coordinates_are_independent():
    """Seen coordinates are those of `y`; the others have the law of the prior for `eta = 0`."""
    vectors = np.linalg.qr(np.array([[1.0, 0.4], [-0.5, 1.0]]))[0]
    prior = normal(cov=vectors * [0.5, 0.1] @ vectors.T)
    operator = Dense(jnp.array(vectors), jnp.array([2.0, 0.0]))
    y = 1.6 * vectors[:, 0]  # of 0.8 along the first vector
    sampler = ddrm(SCHEDULES["cosine"], observed(operator, y, 0.0, 4000), eta=0.0)
    x = outcome(prior, sampler, np.linspace(1, 0, 41), 4000).x @ vectors
    assert_normal(x, [0.8, MEAN @ vectors[:, 1]], np.diag([0.0, 0.1]))


@pytest.mark.slow
def test_repaint_keeps_what_is_known_and_jumps_let_the_rest_adapt():
    """The mean of the rest given `y` is off by a third of the way without jumps."""
    schedule, num = SCHEDULES["cosine"], 2000
    inner = repaint(schedule, known_first(num, 0.9), ddim(schedule, 1.0))
    exact = MEAN[1] + COV[1, 0] / COV[0, 0] * (0.9 - MEAN[0])
    line, errors = np.linspace(1, 0, 41), []
    for jumps in (0, 10):
        grid = [line[:1]]
        for i in range(0, 40, 4):  # each piece of four steps, from its start again and again
            grid += [line[i + 1 : i + 5]] + [line[i : i + 5]] * jumps
        x = outcome(normal(), restart(schedule, inner), np.concatenate(grid), num).x
        np.testing.assert_array_equal(x[:, 0], np.float32(0.9))
        errors.append(abs(x[:, 1].mean() - exact))
    assert errors[0] > 0.1
    assert errors[1] < 0.06


def test_repaint_replaces_what_is_known_by_y_with_the_noise_of_the_step():
    schedule, keys, half = SCHEDULES["cosine"], keys_of(4000), jnp.array(0.5)
    sampler = repaint(schedule, known_first(4000, 0.9), ddim(schedule))
    x_t, one = jnp.ones((4000, 2)), jnp.array(0.9)
    x_s, _ = sampler.step(lambda x, t: Denoised(x), (), x_t, one, half, keys)
    alpha, sigma = schedule.scales(half)
    assert_normal(x_s[:, :1], [0.9 * alpha], np.array([[sigma**2]]))
    expected, _ = ddim(schedule).step(lambda x, t: Denoised(x), (), x_t, one, half, keys)
    np.testing.assert_array_equal(x_s[:, 1], expected[:, 1])


def test_new_noise_is_a_share_of_all(x64):
    schedule, keys, zeta = SCHEDULES["flow"], keys_of(3), 0.3
    x_t = np.random.default_rng(0).normal(size=(3, 2))

    def denoise(x, t):
        return Denoised(jnp.tanh(x))

    def step(sampler):
        return sampler.step(denoise, (), jnp.array(x_t), jnp.array(0.7), jnp.array(0.4), keys)[0]

    eps, z = (x_t - 0.3 * np.tanh(x_t)) / 0.7, np.asarray(sample_noise(keys, (2,)))
    expected = 0.6 * np.tanh(x_t) + 0.4 * (np.sqrt(1 - zeta) * eps + np.sqrt(zeta) * z)
    np.testing.assert_allclose(step(renoising(schedule, zeta)), expected, rtol=1e-12)
    np.testing.assert_array_equal(step(renoising(schedule, 0.0)), step(ddim(schedule)))


def test_operators_that_do_not_fit_are_named():
    observation = observed(jnp.tanh, [0.0, 0.0], 0.0, 1)
    with pytest.raises(ValueError, match="ddrm needs an operator with a spectrum"):
        ddrm(SCHEDULES["flow"], observation)
    observation = observation.replace(operator=Dense(jnp.eye(2), jnp.ones(2)))
    with pytest.raises(ValueError, match="RePaint needs a mask, and the operator is Dense"):
        repaint(SCHEDULES["flow"], observation, ddim(SCHEDULES["flow"]))
