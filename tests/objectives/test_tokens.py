"""Bounds of tokens are the entropy of the texts, with exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.tokens import Cosine, Masked, Polynomial, Replaced
from diffusion_jax.objectives.tokens import (
    by_count,
    in_steps,
    in_time,
    masked_bound,
    replaced_bound,
)
from tests.token_oracles import chain

SCHEDULES = {"linear": Polynomial(), "square": Polynomial(2.0), "cosine": Cosine()}
TEXTS = chain()
NUM = 60_000


def mean_of(bound, process, *args):
    """Mean of the bound per text with its standard error, over texts and noise."""
    x_0 = jnp.asarray(TEXTS.sample(NUM))
    u = jnp.mod(0.37 + jnp.arange(NUM) / NUM, 1)
    keys = jax.random.split(jax.random.key(1), NUM)
    values, _ = jax.jit(lambda *a: bound(process, *args, *a))(x_0, {}, u, keys)
    values = np.asarray(values, np.float64) * TEXTS.length
    return values.mean(), values.std() / NUM**0.5


@pytest.mark.parametrize("estimator", [in_time, by_count])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_masked_bound_is_the_entropy(name, estimator):
    process = Masked(SCHEDULES[name], 3)
    mean, error = mean_of(masked_bound, process, estimator, process.denoiser(TEXTS.of_masked))
    assert abs(mean - TEXTS.entropy) < 4 * error
    assert error < 0.03


def test_in_steps_it_is_above():
    process = Masked(Polynomial(), 3)
    few, error = mean_of(masked_bound, process, in_steps(2), process.denoiser(TEXTS.of_masked))
    assert few > TEXTS.entropy + 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_bound_of_uniform_noise_is_the_entropy_with_the_prediction_from_the_others(name):
    schedule = SCHEDULES[name]
    for leave_one_out in (True, False):  # of the network, which makes no difference
        process = Replaced(schedule, 3, leave_one_out)
        network = TEXTS.of_replaced(schedule.lost, others=leave_one_out)
        mean, error = mean_of(replaced_bound, process, process.denoiser(network))
        assert abs(mean - TEXTS.entropy) < 4 * error
        assert error < 0.1
    # The prediction from all tokens in its place is strictly worse.
    process = Replaced(schedule, 3)
    network = TEXTS.of_replaced(schedule.lost, others=False)
    mean, error = mean_of(replaced_bound, process, process.denoiser(network))
    assert mean > TEXTS.entropy + 6 * error
