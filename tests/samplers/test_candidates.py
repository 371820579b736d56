"""Choosing among candidates by a second law (EDLM) makes tokens of a step depend on each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.samplers.candidates import resampled
from diffusion_jax.samplers.loop import run
from diffusion_jax.samplers.unmasking import ancestral
from tests.samplers.test_tokens import TEXTS, drawn, law_of_masks, p_value

PROCESS = Masked(Polynomial(), 3)


def log_law(texts):
    """Of the source: what an exact autoregressive network would give, and a constant."""
    place = texts @ jnp.asarray(TEXTS.vocabulary ** np.arange(TEXTS.length)[::-1])
    return jnp.log(jnp.asarray(TEXTS.p))[place] + 5


def network(x_t, t, cond):
    """The exact one, which says nothing of tokens that are known."""
    return jnp.where((x_t == PROCESS.mask)[..., None], TEXTS.of_masked(x_t, t, cond), 0.0)


def texts_of(candidates, **given):
    """Texts of a single step."""
    sampler = resampled(PROCESS, ancestral(PROCESS), log_law, candidates)
    return drawn(PROCESS, network, sampler, 1, **given)


@pytest.mark.slow
def test_one_of_two_has_the_enumerated_law():
    q = law_of_masks("linear", 1)  # of independent tokens
    weight = TEXTS.p / q
    law = 2 * q * np.sum(q * weight[:, None] / (weight[:, None] + weight), axis=-1)
    assert abs(law.sum() - 1) < 1e-6
    assert p_value(texts_of(2), law / law.sum()) > 1e-4
    assert p_value(texts_of(1), q) > 1e-4


@pytest.mark.slow
def test_with_many_a_step_has_the_joint_law():
    def distance(law):
        return np.abs(law - TEXTS.p).sum() / 2

    counts = np.bincount(TEXTS.number(texts_of(64, num=20_000)), minlength=len(TEXTS.p))
    assert distance(counts / counts.sum()) < 0.3 * distance(law_of_masks("linear", 1))


@pytest.mark.slow
def test_known_tokens_stay_and_the_rest_is_of_their_conditional_law():
    x_T = jnp.broadcast_to(jnp.array([3, 1, 3, 0], jnp.int32), (10_000, 4))
    texts = texts_of(64, num=len(x_T), x_T=x_T)
    assert (texts[:, [1, 3]] == [1, 0]).all()
    fits = (TEXTS.all[:, 1] == 1) & (TEXTS.all[:, 3] == 0)
    law = np.where(fits, TEXTS.p, 0) / TEXTS.p[fits].sum()
    counts = np.bincount(TEXTS.number(texts), minlength=len(law))
    assert np.abs(counts / counts.sum() - law).sum() / 2 < 0.03


@pytest.mark.slow
def test_a_text_stands_until_a_token_changes():
    """So predictions that are used again are exact, and samples do not depend on their batch."""
    keys, times, count = jax.random.split(jax.random.key(0), 6), jnp.linspace(1, 0, 33), []

    def counted(texts):
        jax.debug.callback(lambda: count.append(1))
        return log_law(texts)

    def drawn_with(cached, rows):
        sampler = resampled(PROCESS, ancestral(PROCESS, cached), counted, 3)
        x_T, each = jnp.full((len(keys), 4), 3)[rows], keys[rows]
        texts = run(PROCESS.denoiser(network), sampler, times, x_T, {}, each).x
        jax.effects_barrier()
        return np.asarray(texts)

    plain = drawn_with(False, slice(None))
    assert len(count) == 3 * 32
    np.testing.assert_array_equal(drawn_with(True, slice(None)), plain)
    count.clear()
    np.testing.assert_array_equal(drawn_with(True, slice(1)), plain[:1])
    assert len(count) <= 3 * 5  # a text has four tokens
