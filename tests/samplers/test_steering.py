"""Steered particles tend to the tilted law of the chain, which can be enumerated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.guidance.tokens import field, of_tokens
from diffusion_jax.samplers.loop import run
from diffusion_jax.samplers.steering import steered
from diffusion_jax.samplers.unmasking import ORDERS, ancestral, by_count, remasking
from diffusion_jax.types import Sampler
from tests.tilted import law_in_steps, predicted, table
from tests.token_oracles import chain

V, L, H = 3, 4, 1.3
PROCESS, TEXTS = Masked(Polynomial(), V), chain()
P = predicted(TEXTS.of_masked, V, L)
MEMBERS = np.array([0.0, 1.0, 0.4])
M = MEMBERS[TEXTS.all].sum(1)
NUM = 8192


def reward(p):
    return H * of_tokens(MEMBERS)(p)


def of_texts(p):
    """A reward of texts alone: whether the first and the last token are the same."""
    first, last = jnp.argmax(p[:, 0], -1), jnp.argmax(p[:, -1], -1)
    return 2.0 * (first == last)


def particles(size, sampler=None, reward=reward, steps=L, x_T=None, num=NUM, **settings):
    """Texts `[G, K]` by number, weights `[G, K]` and estimates of the normaliser `[G]`."""
    keys = jax.random.split(jax.random.key(5), num)
    x_T = PROCESS.prior(keys, (L,), 1.0) if x_T is None else x_T
    method = steered(PROCESS, sampler or by_count(PROCESS), reward, size, **settings)
    denoiser, times = PROCESS.denoiser(table(P)), jnp.linspace(1, 0, steps + 1)
    found = jax.jit(lambda x: run(denoiser, method, times, x, {}, keys))(x_T)
    state = found.state.particles
    weights = np.exp(np.asarray(state.log_weights, np.float64)).reshape(-1, size)
    evidence = np.exp(np.asarray(state.log_evidence, np.float64)).reshape(-1, size)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert (evidence == evidence[:, :1]).all()
    sizes = state.effective_sizes(size)
    np.testing.assert_allclose(sizes, 1 / np.sum(weights**2, 1), rtol=1e-4)
    return TEXTS.number(np.asarray(found.x)).reshape(-1, size), weights, evidence[:, 0]


def assert_tends_to(law, log_weight, found, score):
    """The normaliser is unbiased, and so is each group's estimate times it: to 5 errors."""
    texts, weights, evidence = found
    total = law @ np.exp(log_weight)
    exact = law @ (np.exp(log_weight) * score) / total
    values = np.stack([evidence, evidence * (weights * score[texts]).sum(1)]) / total
    error = values.std(axis=1) / values.shape[1] ** 0.5
    assert np.all(error < 0.06), error
    assert np.all(np.abs(values.mean(1) - [1, exact]) < 5 * error + 1e-5), (values.mean(1), error)
    return exact


NAIVE = field(of_tokens(MEMBERS), H)
SETTINGS = {
    "plain": {},
    "naive field": {"proposal": NAIVE},
    "drawn": {"proposal": NAIVE, "drawn": True},
    "strange proposal": {"proposal": lambda x_t, t, log_p: 0.5 * log_p + jnp.arange(3.0) / 3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_error_falls_with_the_root_of_the_particles(name):
    errors = []
    for size in (4, 64):
        texts, weights, _ = found = particles(size, resample_below=0.9, **SETTINGS[name])
        exact = assert_tends_to(TEXTS.p, H * M, found, M)
        estimates = (weights * M[texts]).sum(1)
        errors.append(np.sqrt(np.mean((estimates - exact) ** 2)))
    assert 2.7 < errors[0] / errors[1] < 6, errors


CHAINS = {
    "two steps": (ancestral(PROCESS), 2, 0.0),
    "remasking": (remasking(PROCESS, 0.6, "rescale"), 3, 0.6),
    "by entropy": (by_count(PROCESS, ORDERS["entropy"]), L, None),  # as exact as in random order
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_target_is_the_tilted_law_of_the_chain(name):
    sampler, steps, strength = CHAINS[name]
    law = TEXTS.p
    if strength is not None:
        law = law_in_steps([P] * steps, np.linspace(1, 0, steps + 1), strength)
    found = particles(16, sampler, steps=steps, resample_below=0.9, proposal=NAIVE)
    assert_tends_to(law, H * M, found, M)


def test_rewards_of_texts_alone():
    log_weight = 2.0 * (TEXTS.all[:, 0] == TEXTS.all[:, -1])
    found = particles(16, reward=of_texts, drawn=True)
    assert_tends_to(TEXTS.p, log_weight, found, M)


def test_known_tokens_stay_and_the_rest_is_tilted():
    x_T = jnp.broadcast_to(jnp.array([3, 3, 1, 3]), (NUM, L))
    fits = TEXTS.all[:, 2] == 1
    law = np.where(fits, TEXTS.p, 0) / TEXTS.p[fits].sum()
    texts, _, _ = found = particles(16, x_T=x_T, steps=3, proposal=NAIVE)
    assert fits[texts].all()
    assert_tends_to(law, H * M, found, M)


def test_the_proposal_makes_weights_even_and_without_resampling_they_are_as_they_are():
    size = functools.partial(particles, 16, resample_below=0.0)
    sizes = [np.mean(1 / np.sum(size(**each)[1] ** 2, 1)) for each in ({}, {"proposal": NAIVE})]
    assert sizes[1] > 1.3 * sizes[0] > 1.3, sizes
    # One token has no neighbours that the naive field would not see: weights are even.
    x_T = jnp.broadcast_to(jnp.array([0, 1, 3, 0]), (64, L))
    _, weights, _ = particles(16, x_T=x_T, steps=1, num=64, proposal=NAIVE)
    np.testing.assert_allclose(weights, 1 / 16, rtol=1e-4)


def test_the_potential_of_independent_tokens_is_exact():
    """With the naive field as their proposal all particles are worth the same, at all times."""
    process, keys = Masked(Polynomial(), V), jax.random.split(jax.random.key(0), 256)
    denoiser = process.denoiser(lambda x_t, t, cond: jnp.asarray(P)[-1] * jnp.ones((256, 1, 1)))
    sampler = steered(process, ancestral(process), reward, 16, NAIVE, resample_below=0.99)
    x_T, times = process.prior(keys, (L,), 1.0), jnp.linspace(1, 0, L + 1)
    state = run(denoiser, sampler, times, x_T, {}, keys).state.particles
    assert np.all(np.asarray(state.gathered) == 0)
    np.testing.assert_allclose(np.exp(state.log_weights), 1 / 16, rtol=1e-4)


def test_the_state_of_the_sampler_goes_with_its_particle():
    """Here it is the text of the last step, and whether that was always the text of the next."""
    inner, num = by_count(PROCESS), 256

    def init(x_T):
        return inner.init(x_T), x_T, jnp.ones(len(x_T), bool)

    def step(denoise, state, x_t, t, s, keys):
        state, last, same = state
        x_s, state = inner.step(denoise, state, x_t, t, s, keys)
        return x_s, (state, x_s, same & jnp.all(last == x_t, axis=1))

    sampler = steered(PROCESS, Sampler(init, step, stochastic=True), reward, 16, resample_below=1.0)
    keys = jax.random.split(jax.random.key(5), num)
    x_T, times = PROCESS.prior(keys, (L,), 1.0), jnp.linspace(1, 0, L + 1)
    found = run(PROCESS.denoiser(table(P)), sampler, times, x_T, {}, keys)
    _, last, same = found.state.inner
    np.testing.assert_array_equal(last, found.x)
    assert same.all()
    assert np.mean(np.asarray(found.state.particles.gathered) != 0) > 0.9  # they were resampled


def test_groups_fill_the_batch():
    with pytest.raises(ValueError, match="batch of 6 samples must be a multiple of size=4"):
        steered(PROCESS, ancestral(PROCESS), reward, 4).init(jnp.zeros((6, L), jnp.int32))


@pytest.mark.parametrize(("name", "value"), [("size", 0), ("resample_below", 1.5)])
def test_wrong_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value} must lie in"):
        steered(PROCESS, ancestral(PROCESS), **{"reward": reward, "size": 2, name: value})
