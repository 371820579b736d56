"""Block diffusion has the laws that can be enumerated, and its bound is the entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.objectives.tokens import block_bound, by_count, in_time
from diffusion_jax.samplers.blocks import block_times, in_blocks
from diffusion_jax.samplers.loop import run
from diffusion_jax.samplers.unmasking import ancestral, first_hitting, remasking
from tests.samplers.test_tokens import NUM, TEXTS, p_value

PROCESS = Masked(Polynomial(), 3)


def exact(block):
    """The exact network: of later blocks it sees nothing, and earlier ones without noise."""

    def network(x_t, t, cond):
        place = np.arange(TEXTS.length) // block * block
        clean, logits = cond.get("clean", x_t), []
        for i in range(TEXTS.length):
            seen = jnp.where(np.arange(TEXTS.length) < place[i], clean, x_t)
            seen = jnp.where(np.arange(TEXTS.length) < place[i] + block, seen, PROCESS.mask)
            logits.append(TEXTS.of_masked(seen, t, cond)[:, i])
        return jnp.stack(logits, axis=1)

    return network


def drawn(inner, block, steps, x_T=None):
    sampler = in_blocks(PROCESS, inner, block)
    times = block_times(jnp.linspace(1, 0, steps + 1), TEXTS.length // block)
    keys = jax.random.split(jax.random.key(3), NUM)
    if x_T is None:
        x_T = PROCESS.prior(keys, (TEXTS.length,), times[0])
    denoiser = PROCESS.denoiser(exact(block))
    outcome = jax.jit(lambda x: run(denoiser, sampler, times, x, {}, keys))(x_T)
    return np.asarray(outcome.x), np.asarray(outcome.state.evaluations)


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 2])
def test_one_token_after_the_other_is_exact(block):
    texts, evaluations = drawn(first_hitting(PROCESS), block, block)
    assert p_value(texts, TEXTS.p) > 1e-4
    assert (evaluations == TEXTS.length).all()


@pytest.mark.slow
def test_blocks_of_a_step_are_independent_within_themselves():
    texts, evaluations = drawn(ancestral(PROCESS), 2, 1)
    law = np.ones(len(TEXTS.p))
    for place in (0, 2):
        seen = np.where(np.arange(TEXTS.length) < place, TEXTS.all, PROCESS.mask)
        p = np.asarray(jax.nn.softmax(TEXTS.of_masked(jnp.asarray(seen), None, {})))
        for i in (place, place + 1):
            law *= p[np.arange(len(law)), i, TEXTS.all[:, i]]
    assert p_value(texts, law / law.sum()) > 1e-4
    assert (evaluations == 2).all()


@pytest.mark.slow
def test_known_tokens_stay_and_need_no_evaluations():
    known = np.array([0, 2, 3, 1], np.int32)
    x_T = jnp.broadcast_to(jnp.asarray(known), (NUM, TEXTS.length))
    texts, evaluations = drawn(first_hitting(PROCESS), 2, 2, x_T)
    np.testing.assert_array_equal(texts[:, [0, 1, 3]], np.broadcast_to([0, 2, 1], (NUM, 3)))
    fits = (TEXTS.all[:, [0, 1, 3]] == [0, 2, 1]).all(axis=1)
    assert p_value(texts, np.where(fits, TEXTS.p, 0) / TEXTS.p[fits].sum()) > 1e-4
    assert (evaluations == 1).all()
    # What is known is asked for in each block anew.
    x_T = jnp.broadcast_to(jnp.array([3, 3, 3, 1], jnp.int32), (NUM, TEXTS.length))
    assert (drawn(remasking(PROCESS, 0.9), 2, 3, x_T)[0][:, 3] == 1).all()


def bound(block, estimator, num):
    x_0 = jnp.asarray(TEXTS.sample(num))
    u, keys = (jnp.arange(num) + 0.5) / num, jax.random.split(jax.random.key(1), num)
    denoiser = PROCESS.denoiser(exact(block))
    values, _ = jax.jit(lambda *a: block_bound(PROCESS, estimator, block, denoiser, *a))(
        x_0, {}, u, keys
    )
    return x_0, np.asarray(values, np.float64) * TEXTS.length


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [in_time, by_count])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_the_bound_is_the_entropy(block, estimator):
    _, values = bound(block, estimator, 20_000)
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean() - TEXTS.entropy) < 4 * error
    assert error < 0.05


def test_with_blocks_of_one_it_is_the_likelihood_of_each_text():
    x_0, values = bound(1, by_count, 64)
    np.testing.assert_allclose(values, -np.log(TEXTS.p[TEXTS.number(np.asarray(x_0))]), rtol=1e-5)


def test_blocks_must_divide_the_text():
    message = "block=3 must divide the length of a text, 4"
    with pytest.raises(ValueError, match=message):
        bound(3, in_time, 2)
    with pytest.raises(ValueError, match=message):
        in_blocks(PROCESS, ancestral(PROCESS), 3).init(jnp.zeros((1, 4), jnp.int32))
