"""Twisted particles against the law of the chain that they sample from, in closed form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.restoration.twisted import twisted
from diffusion_jax.samplers.particles import systematic
from tests.oracles import SCHEDULES, keys_of, three_components
from tests.restoration.normal import COV, MEAN, Matrix, normal, observed, outcome

SCHEDULE, TIMES = SCHEDULES["cosine"], np.linspace(1, 0, 11)
MATRIX, Y, SIGMA = np.array([[1.0, 0.5]]), np.array([0.9]), 0.3


def chain():
    """The normal law of `x_0` that ten ancestral steps with the large variance end with.

    The mean of each is linear in `x_t`: Eq. 7 of Ho et al. 2020, with the exact denoiser. The
    first step is as long as ten thousand times in `sigma / alpha`, and has the small variance.
    """
    mean, cov = np.zeros(2), float(SCHEDULE.sigma(jnp.array(1.0))) ** 2 * np.eye(2)
    for i, (t, s) in enumerate(itertools.pairwise(TIMES)):
        (a, v), (b, w) = ([float(c) for c in SCHEDULE.scales(jnp.array(r))] for r in (t, s))
        gain = a * COV @ np.linalg.inv(a**2 * COV + v**2 * np.eye(2))
        rest = 1 - (a * w / (b * v)) ** 2
        map_x = a / b * (w / v) ** 2 * np.eye(2) + b * rest * gain
        mean = map_x @ mean + b * rest * (MEAN - a * gain @ MEAN)
        noise = 0 if w == 0 else (w if i == 0 else v) ** 2 * rest
        cov = map_x @ cov @ map_x.T + noise * np.eye(2)
    return normal(mean, cov)


def particles(size, groups, sigma=SIGMA, **settings):
    num = size * groups
    observation = observed(Matrix(jnp.array(MATRIX, float)), Y, sigma, num)
    found = outcome(normal(), twisted(SCHEDULE, observation, size, **settings), TIMES, num)
    return found.x.reshape(groups, size, 2), jax.tree.map(
        lambda a: a.reshape(groups, size), found.state
    )


@pytest.mark.slow
def test_evidence_is_unbiased_and_the_error_falls_with_the_root_of_the_particles():
    """Also of groups that are resampled, here as the twisting function is too narrow."""
    law, errors = chain(), []
    log_evidence = law.log_evidence(MATRIX, Y, SIGMA)
    mean, _ = law.posterior(MATRIX, Y, SIGMA).moments()
    for size in (16, 256):
        x, state = particles(size, 16384 // size, data_std=0.6)
        weights = np.exp(state.log_weights)
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
        ratio = np.exp(state.log_evidence[:, 0] - log_evidence)
        error = ratio.std() / len(ratio) ** 0.5
        assert error < 0.02
        assert abs(ratio.mean() - 1) < 5 * error, (ratio.mean(), error)
        resampled = np.mean(state.gathered != 0)
        assert resampled > 0.1, resampled
        errors.append(np.sqrt(np.mean((np.sum(weights[..., None] * x, axis=1) - mean) ** 2)))
    assert 3.2 < errors[0] / errors[1] < 5, errors


@pytest.mark.slow
def test_of_a_mixture_evidence_and_modes_tend_to_the_exact_ones_with_the_steps():
    """A coarse chain has another law, which shows: its evidence is half as large again."""
    prior, y, size, num, errors = three_components(), np.array([0.6]), 64, 8192, []
    exact, log_evidence = prior.posterior(MATRIX, y, SIGMA), prior.log_evidence(MATRIX, y, SIGMA)
    observation = observed(Matrix(jnp.array(MATRIX, float)), y, SIGMA, num)
    sampler = twisted(SCHEDULE, observation, size, data_std=0.8)
    for steps in (10, 160):
        x, state, _ = outcome(prior, sampler, np.linspace(1, 0, steps + 1), num)
        evidence = np.exp(state.log_evidence - log_evidence)
        weights = evidence * np.exp(state.log_weights)
        modes = weights @ prior.responsibilities(x, 1.0, 1e-4) / weights.sum()
        errors.append((abs(evidence.mean() - 1), np.max(np.abs(modes - exact.weights))))
    assert np.all(errors[0] > np.array([0.4, 0.08])), errors
    assert np.all(errors[1] < np.array([0.12, 0.03])), errors


def test_groups_with_even_weights_are_not_resampled():
    _, state = particles(8, 4, sigma=30.0)
    assert np.all(state.gathered == 0)
    assert np.all(1 / np.sum(np.exp(state.log_weights) ** 2, axis=1) > 7.9)


def test_systematic_resampling_rounds_up_or_down_and_is_right_on_average():
    shares = jnp.array([0.31, 0.0, 0.45, 0.24])
    chosen = jax.jit(jax.vmap(functools.partial(systematic, shares=shares)))(keys_of(2000))
    counts = np.stack([np.sum(chosen == i, axis=1) for i in range(4)], axis=1)
    assert np.all(np.abs(counts - 4 * shares) < 1)
    np.testing.assert_allclose(counts.mean(0), 4 * shares, atol=0.06)


def test_groups_fill_the_batch():
    with pytest.raises(ValueError, match="batch of 6 samples must be a multiple of size=4"):
        twisted(SCHEDULE, observed(Matrix(jnp.array(MATRIX)), Y, 0.1, 6), 4).init(jnp.zeros((6, 2)))
