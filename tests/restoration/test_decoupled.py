"""DAPS and split Gibbs where they are exact, and their draws given an observation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.restoration.conditional import exact, langevin
from diffusion_jax.restoration.ddrm import ddrm
from diffusion_jax.restoration.decoupled import daps, split_gibbs
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.restoration.repaint import repaint
from diffusion_jax.restoration.twisted import twisted
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.sde import ancestral
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, keys_of
from tests.restoration.normal import (
    MEAN,
    Dense,
    Matrix,
    assert_normal,
    normal,
    observed,
    outcome,
)

SCHEDULE, NUM = SCHEDULES["cosine"], 4000
VECTORS = np.linalg.qr(np.array([[1.0, 0.4], [-0.5, 1.0]]))[0]
BOTH = VECTORS * [2.0, 0.5] @ VECTORS.T
MATRIX, Y, SIGMA = np.array([[1.0, 0.5]]), np.array([0.9]), 0.3


@pytest.mark.parametrize("operator", [Dense(VECTORS, np.array([2.0, 0.5])), Matrix(BOTH)])
def test_exact_draws_given_an_observation(operator):
    """By the decomposition and by conjugate gradients."""
    operator, y = jax.tree.map(lambda a: jnp.array(a, float), operator), [0.9, -0.4]
    observation, mean = observed(operator, y, 0.4, NUM), jnp.tile(jnp.array(MEAN), (NUM, 1))
    x = jax.jit(lambda keys: exact(observation, mean, jnp.array(0.7), keys))(keys_of(NUM))
    law = normal(cov=0.49 * np.eye(2)).posterior(BOTH, np.array(y), 0.4)
    assert_normal(x, *law.moments())


def test_langevin_draws_given_what_is_not_linear():
    """`y = tanh(x) + noise`, by quadrature; the step may make the variance 5% too large."""
    observation, mean = observed(jnp.tanh, [0.7], 0.3, NUM), jnp.full((NUM, 1), 0.2)
    draw = functools.partial(langevin, steps=500, size=0.1)
    x = jax.jit(lambda keys: draw(observation, mean, jnp.array(0.8), keys))(keys_of(NUM))
    line = np.linspace(-5, 5, 2001)
    logs = -0.5 * ((line - 0.2) / 0.8) ** 2 - 0.5 * ((0.7 - np.tanh(line)) / 0.3) ** 2
    share = np.exp(logs) / np.exp(logs).sum()
    middle = share @ line
    assert abs(x.mean() - middle) < 0.05
    assert 0.9 < x.var() / (share @ (line - middle) ** 2) < 1.12


def test_daps_is_exact_for_the_normal_data_that_it_assumes():
    """Data of variance 1, and one step of the ODE; `x_s` halfway is the posterior with noise."""
    prior, observation = normal(cov=np.eye(2)), observed(Matrix(jnp.array(MATRIX)), Y, SIGMA, NUM)
    x = outcome(prior, daps(SCHEDULE, observation, 1, exact), np.linspace(1, 0.5, 6), NUM).x
    scales = map(float, SCHEDULE.scales(jnp.array(0.5)))
    assert_normal(x, *prior.posterior(MATRIX, Y, SIGMA).moments(*scales))


@pytest.mark.slow
def test_split_gibbs_has_the_posterior_of_its_coupling():
    """At a fixed one, `rho`: that for a noise `sigma_y^2 I + rho^2 A A^T`."""
    rho, observation = 0.7, observed(Matrix(jnp.array(MATRIX)), Y, SIGMA, NUM)
    level = float(SCHEDULE.time_at(jnp.array(-2 * np.log(rho))))
    sampler = split_gibbs(SCHEDULE, observation, ancestral(SCHEDULE), 20)
    assert sampler.evaluations == 20
    x = outcome(normal(), sampler, [1.0, *[level] * 10, 0.0], NUM).x
    coupled = np.sqrt(SIGMA**2 + rho**2 * np.sum(MATRIX**2))
    assert_normal(x, *normal().posterior(MATRIX, Y, coupled).moments())


def test_split_gibbs_needs_draws():
    observation = observed(Matrix(jnp.array(MATRIX)), Y, SIGMA, 1)
    with pytest.raises(ValueError, match="split Gibbs needs a sampler that draws noise"):
        split_gibbs(SCHEDULE, observation, ddim(SCHEDULE))


METHODS = {
    "ddrm": lambda observation: ddrm(SCHEDULE, observation),
    "repaint": lambda observation: repaint(SCHEDULE, observation, ddim(SCHEDULE, 1.0)),
    "daps": lambda observation: daps(SCHEDULE, observation, 2, langevin),
    "split_gibbs": lambda observation: split_gibbs(SCHEDULE, observation, ancestral(SCHEDULE), 2),
    "twisted": lambda observation: twisted(SCHEDULE, observation, 2, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_sample_depends_on_its_own_group_alone(method):
    """Those of the second of two groups, alone and after the first."""
    rng = np.random.default_rng(0)
    x_t, y = rng.normal(size=(2, 2, 1, 3)).repeat(2, axis=1).reshape(2, 4, 3)
    known = np.array([[1.0, 0, 1]] * 2 + [[0.0, 1, 1]] * 2)
    observation = Observation(y, Mask(known), np.array([0.1, 0.1, 0.5, 0.5]))
    inputs = x_t + np.arange(4)[:, None], observation

    @jax.jit
    def step(x_t, observation, keys):
        sampler = METHODS[method](observation)
        ends = sampler.init(x_t), x_t, jnp.array(0.6), jnp.array(0.3), keys
        return sampler.step(lambda x, t: Denoised(jnp.tanh(x)), *ends)

    both, one = (
        step(*jax.tree.map(lambda a, of=of: jnp.array(a[of]), inputs), keys_of(4)[of])
        for of in (slice(None), slice(2, 4))
    )
    for whole, alone in zip(jax.tree.leaves(both), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(whole[2:], alone, rtol=1e-5, atol=1e-6)
