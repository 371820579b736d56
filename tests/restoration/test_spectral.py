"""DDRM, RePaint and DiffPIR's step: their published equations, and where they are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.restoration.ddrm import ddrm
from diffusion_jax.restoration.operators import Mask, Observation, Spectrum
from diffusion_jax.restoration.renoising import renoising
from diffusion_jax.restoration.repaint import repaint
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.restart import restart
from diffusion_jax.types import Array, Denoised
from tests.oracles import SCHEDULES, GaussianMixture, keys_of

MEAN, COV = np.array([0.3, -0.2]), np.array([[0.5, 0.3], [0.3, 0.4]])
PRIOR = GaussianMixture(np.ones(1), MEAN[None], COV[None])
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]


@struct.dataclass
class Dense:
    """`A = V S V^T` for vectors `[B, D]`."""

    vectors: Array
    values: Array

    def __call__(self, x):
        return (x @ self.vectors * self.values) @ self.vectors.T

    def spectrum(self, x):
        along, back = (lambda x: x @ self.vectors), (lambda z: z @ self.vectors.T)
        return Spectrum(self.values, along, back, along)


def drawn(prior, sampler, times, num=4000, name="cosine"):
    """Samples `[num, D]` with the exact denoiser."""
    schedule = SCHEDULES[name]
    x_T = schedule.sigma(times[0]) * sample_noise(keys_of(num, 2), prior.means.shape[1:])
    program = jax.jit(
        lambda x, keys: sample(prior.denoiser(schedule), sampler, times, x, {}, keys)[0]
    )
    return np.asarray(program(x_T, keys_of(num)))


def assert_normal(x, mean, cov):
    """Mean and covariance of `x` `[N, D]` within 5 standard errors; none of what is constant."""
    x, diagonal = np.asarray(x, float), np.diag(cov)
    mean_error = 5 * np.sqrt(diagonal / len(x)) + 1e-5
    cov_error = 5 * np.sqrt((np.outer(diagonal, diagonal) + cov**2) / len(x)) + 1e-5
    assert np.all(np.abs(x.mean(0) - mean) < mean_error), (x.mean(0), mean)
    assert np.all(np.abs(np.cov(x.T) - cov) < cov_error), (np.cov(x.T), cov)


def known_first(num, y):
    """Of vectors of two entries the first is known, without noise."""
    mask = Mask(jnp.tile(jnp.array([[1.0, 0.0]]), (num, 1)))
    return Observation(jnp.tile(jnp.array([[y, 0.0]]), (num, 1)), mask, jnp.zeros(num))


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
    prior = GaussianMixture(np.ones(1), MEAN[None], (vectors * [0.5, 0.1] @ vectors.T)[None])
    operator = Dense(jnp.array(vectors), jnp.array([2.0, 0.0]))
    y = 1.6 * vectors[:, 0]  # of 0.8 along the first vector
    observation = Observation(jnp.tile(jnp.array(y), (4000, 1)), operator, jnp.zeros(4000))
    sampler = ddrm(SCHEDULES["cosine"], observation, eta=0.0)
    x = drawn(prior, sampler, jnp.linspace(1, 0, 41)) @ vectors
    assert_normal(x, [0.8, MEAN @ vectors[:, 1]], np.diag([0.0, 0.1]))


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
        x = drawn(PRIOR, restart(schedule, inner), jnp.asarray(np.concatenate(grid)), num)
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
    observation = Observation(jnp.zeros((1, 2)), jnp.tanh, jnp.zeros(1))
    with pytest.raises(ValueError, match="singular value decomposition"):
        ddrm(SCHEDULES["flow"], observation)
    observation = observation.replace(operator=Dense(jnp.eye(2), jnp.ones(2)))
    with pytest.raises(ValueError, match="RePaint needs a mask, and the operator is Dense"):
        repaint(SCHEDULES["flow"], observation, ddim(SCHEDULES["flow"]))
