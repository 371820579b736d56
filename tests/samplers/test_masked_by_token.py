"""Masking with a schedule for each token: its bound, its gradient, and its sampler (GenMD4)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.tokens import Cosine, MaskedByToken, Polynomial
from diffusion_jax.objectives.masked_by_token import bound_at, bound_by_token
from diffusion_jax.samplers.unmasking import ancestral
from tests.samplers.test_tokens import TEXTS, chained, drawn, every, p_value

POWERS = np.array([0.5, 1.0, 2.0])
LINEAR = Polynomial()


def exact(powers, schedule=LINEAR):
    """The exact network: a mask is evidence of tokens that are lost early."""

    def network(x_t, t, cond):
        seen = x_t[..., None] == jnp.arange(3)
        lost = schedule.lost(t)[:, None, None] ** jnp.asarray(powers)
        p = TEXTS.conditional(jnp.where(x_t[..., None] == 3, lost, seen))
        return jnp.log(jnp.maximum(p, 1e-30))

    return network


@pytest.mark.parametrize(
    ("powers", "schedule"),
    [((1.0, 1.0, 1.0), LINEAR), (POWERS, LINEAR), (POWERS, Cosine()), ((3.0, 1.5, 1.0), LINEAR)],
)
def test_the_bound_is_the_entropy(x64, powers, schedule):
    """All texts and masks are enumerated, and the time is integrated over by quadrature."""
    process = MaskedByToken(schedule, jnp.asarray(powers))
    denoiser = process.denoiser(exact(powers, schedule))
    masks = np.array(list(itertools.product([False, True], repeat=TEXTS.length)))
    x_0 = jnp.asarray(np.repeat(TEXTS.all, len(masks), axis=0))
    masked = jnp.asarray(np.tile(masks, (len(TEXTS.all), 1)))
    p = jnp.asarray(np.repeat(TEXTS.p, len(masks)))

    def at(time):
        t = jnp.full(len(x_0), time)
        lost = schedule.lost(time) ** jnp.asarray(powers)[x_0]
        q = jnp.prod(jnp.where(masked, lost, 1 - lost), axis=-1)
        return jnp.sum(p * q * bound_at(process, denoiser, x_0, jnp.where(masked, 3, x_0), t, {}))

    y, weight = np.polynomial.legendre.leggauss(24)
    y, weight = (y + 1) / 2, weight / 2
    values = jax.jit(lambda t: jax.lax.map(at, t))(jnp.asarray(y**4))
    total = np.sum(weight * 4 * y**3 * np.asarray(values)) * TEXTS.length
    np.testing.assert_allclose(total, TEXTS.entropy, rtol=1e-6)


@pytest.mark.slow
def test_the_gradient_is_that_of_the_bound():
    """Of a denoiser that is not exact, at one time, against all masks of a text."""
    num, time = 40_000, 0.6
    logits = jax.random.normal(jax.random.key(0), (TEXTS.length, 3)) * 2
    text, masks = jnp.array([0, 2, 1, 2]), jnp.asarray(every(2) == 1)

    def denoiser_of(process):
        # It depends on the text, so that the two draws have different losses.
        return process.denoiser(
            lambda x_t, t, cond: logits * jnp.mean(x_t == 3, axis=-1)[:, None, None]
        )

    def expected(powers):
        process = MaskedByToken(LINEAR, powers)
        lost = time ** powers[text]
        q = jnp.prod(jnp.where(masks, lost, 1 - lost), axis=-1)
        x_0, t = jnp.broadcast_to(text, masks.shape), jnp.full(len(masks), time)
        x_t = jnp.where(masks, 3, x_0)
        return jnp.sum(q * bound_at(process, denoiser_of(process), x_0, x_t, t, {}))

    def estimated(powers):
        process = MaskedByToken(LINEAR, powers)
        x_0, u = jnp.broadcast_to(text, (num, TEXTS.length)), jnp.full(num, 1 - time)
        keys = jax.random.split(jax.random.key(1), num)
        return bound_by_token(process, denoiser_of(process), x_0, {}, u, keys)

    powers = jnp.asarray(POWERS)
    gradients, t = jax.jit(jax.jacfwd(estimated, has_aux=True))(powers)
    np.testing.assert_allclose(t, time, rtol=1e-6)
    bound = estimated(powers)[0]
    for ours, truth in ((bound, expected(powers)), (gradients, jax.grad(expected)(powers))):
        error = np.std(ours, axis=0) / num**0.5
        assert (abs(np.mean(ours, axis=0) - truth) < 4 * error).all()


@pytest.mark.slow
def test_the_gradient_is_finite_at_the_ends():
    def total(powers, u):
        process = MaskedByToken(LINEAR, powers)
        denoiser = process.denoiser(exact((1.0, 1.0, 1.0)))
        x_0, keys = jnp.zeros((2, TEXTS.length), jnp.int32), jax.random.split(jax.random.key(1), 2)
        return bound_by_token(process, denoiser, x_0, {}, u, keys)[0].sum()

    for u in (0.0, 1 - 2.0**-24):
        assert np.isfinite(jax.grad(total)(jnp.ones(3), jnp.full(2, u))).all()


def law_of_steps(powers, network, lost):
    """The law of texts after steps with these shares `lost`, where the times are the shares."""
    states = every(4)
    masked = states == 3

    def laws():
        for t, s in itertools.pairwise(lost):
            logits = network(jnp.asarray(states), jnp.full(len(states), t), {})
            found = np.asarray(jax.nn.softmax(logits), np.float64) * (1 - (s / t) ** powers)
            each = np.zeros((*states.shape, 4))
            each[..., :3] = np.where(masked[..., None], found, np.eye(4)[states][..., :3])
            each[..., 3] = np.where(masked, 1 - found.sum(-1), 0)
            yield each

    law = chained(states, np.all(masked, axis=1).astype(float), laws())
    law = law[~masked.any(axis=1)]
    return law / law.sum()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
def test_steps_have_the_enumerated_law(steps):
    process = MaskedByToken(LINEAR, jnp.asarray(POWERS))
    texts = drawn(process, exact(POWERS), ancestral(process), steps)
    law = law_of_steps(POWERS, exact(POWERS), np.linspace(1, 0, steps + 1))
    assert p_value(texts, law) > 1e-4
