"""The magnet: `p(x) exp(h m(x))` exactly, and what the naive field samples from instead."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.data.sets.hidden_markov import HiddenMarkov
from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.guidance.scales import within
from diffusion_jax.guidance.tokens import by_classifier, magnet, of_tokens, of_words
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.unmasking import ancestral, by_count
from tests.tilted import (
    Tilted,
    every,
    law_in_steps,
    law_one_at_a_time,
    log_partition,
    magnetisation,
    on_tokens,
    predicted,
    table,
    tilted,
)
from tests.token_oracles import Texts, chain

V, L, H = 3, 4, 1.3
PROCESS = Masked(Polynomial(), V)
TEXTS, MEMBERS = chain(), np.array([0.0, 1.0, 0.4])
RNG = np.random.default_rng(3)
SOURCE = HiddenMarkov(RNG.dirichlet(np.ones(4), 4), RNG.dirichlet(np.ones(V), 4))
OF_SOURCE = Texts(np.exp(SOURCE.log_prob(TEXTS.all)), V, L)


def one_hot(texts):
    return jax.nn.one_hot(jnp.asarray(texts), V)


def mean(law, m):
    return float(law @ m)


ON_STATES = np.random.default_rng(1).normal(size=(L, 4))


def paths(h):
    """The law of all paths in a field on their states, and what it acts on."""
    all_of, step = every(4, L), SOURCE.transition
    total = ON_STATES[np.arange(L), all_of].sum(1)
    p = SOURCE.initial[all_of[:, 0]] * np.prod(step[all_of[:, :-1], all_of[:, 1:]], axis=1)
    p *= np.exp(h * total)
    return p / p.sum(), total


def test_the_transfer_matrix_is_the_sum_over_all_texts(x64):
    m = MEMBERS[TEXTS.all].sum(1)
    weights = OF_SOURCE.p * np.exp(H * m)
    field = lambda h: jnp.log(SOURCE.emission @ jnp.exp(h * MEMBERS)) * jnp.ones((L, 1))  # noqa: E731
    log_z = lambda h: log_partition(SOURCE, field(h))  # noqa: E731
    np.testing.assert_allclose(log_z(H), np.log(weights.sum()), rtol=1e-10)
    law = weights / weights.sum()
    variance = mean(law, m**2) - mean(law, m) ** 2
    np.testing.assert_allclose(jax.grad(log_z)(H), mean(law, m), rtol=1e-10)
    np.testing.assert_allclose(jax.grad(jax.grad(log_z))(H), variance, rtol=1e-9)
    difference = (log_z(H + 1e-4) - log_z(H - 1e-4)) / 2e-4
    np.testing.assert_allclose(difference, mean(law, m), rtol=1e-6)
    # A field on states, at each place its own.
    p, total = paths(H)
    at_h = mean(p, total)
    variance = mean(p, total**2) - at_h**2
    found = magnetisation(SOURCE, jnp.asarray(ON_STATES), H)
    np.testing.assert_allclose(found, (at_h / L, variance / L), rtol=1e-9)


def test_the_tilted_source_is_the_enumerated_law():
    p, _ = paths(2 * H)
    of_path = [SOURCE.emission[every(4, L)[:, i]][:, TEXTS.all[:, i]] for i in range(L)]
    on_states = Texts(p @ np.prod(of_path, axis=0), V, L)
    for source, law in (
        (on_tokens(SOURCE, H * MEMBERS, L), tilted(OF_SOURCE, H * MEMBERS[TEXTS.all].sum(1))),
        (Tilted(SOURCE, 2 * H * ON_STATES), on_states),
    ):
        found, exact = predicted(source.of_masked, V, L), predicted(law.of_masked, V, L)
        np.testing.assert_allclose(found, exact, atol=1e-5)
        assert p_value(source.sample(20_000, 0), law.p) > 1e-4


def test_the_look_ahead_ratio_of_the_source_gives_the_exact_denoiser():
    """`log E[exp(h m) | x_t]`, by backward messages, is the classifier of the correct field."""

    def log_mean(x, t, cond):
        seen = jnp.where(x[..., V:] > 0, 1.0, x[..., :V])
        to_states = lambda weights: jnp.log(jnp.maximum(weights @ SOURCE.emission.T, 1e-30))  # noqa: E731
        z = jax.vmap(functools.partial(log_partition, SOURCE))
        return z(to_states(seen * jnp.exp(H * MEMBERS))) - z(to_states(seen))

    guided = by_classifier(PROCESS.denoiser(OF_SOURCE.of_masked), log_mean, 1.0)
    right = tilted(OF_SOURCE, H * MEMBERS[TEXTS.all].sum(1))
    masked = every(V + 1, L) == V
    found = predicted(lambda *a: guided(*a).x_0, V, L)[masked]
    np.testing.assert_allclose(found, predicted(right.of_masked, V, L)[masked], atol=2e-5)


def drawn(denoiser, sampler, steps, num=30_000):
    keys = jax.random.split(jax.random.key(0), num)
    times = jnp.linspace(1, 0, steps + 1)
    x_T = PROCESS.prior(keys, (L,), times[0])
    return np.asarray(jax.jit(lambda x: sample(denoiser, sampler, times, x, {}, keys)[0])(x_T))


def p_value(texts, law):
    """Of the chi-square test that `texts` are of the law `[V^L]`, rare texts together."""
    expected = law / law.sum() * len(texts)
    counts, rare = np.bincount(TEXTS.number(texts), minlength=len(law)), expected < 5
    found, right = (np.append(a[~rare], a[rare].sum()) for a in (counts, expected))
    return stats.chisquare(found[right > 0], right[right > 0]).pvalue


def naive(h):
    """Laws of all masked texts in the naive field."""
    p = predicted(TEXTS.of_masked, V, L) * np.exp(h * MEMBERS)
    return p / p.sum(-1, keepdims=True)


NETWORK = table(predicted(TEXTS.of_masked, V, L))


def test_the_naive_field_has_the_enumerated_gap():
    """It magnetises too little: the field on masks that are left is not felt (0.663 for 0.679)."""
    law, m = law_one_at_a_time(naive(H)), MEMBERS[TEXTS.all].mean(1)
    exact = tilted(TEXTS, H * L * m).p
    texts = drawn(magnet(PROCESS.denoiser(NETWORK), of_tokens(MEMBERS), H), by_count(PROCESS), L)
    assert p_value(texts, law) > 1e-4
    assert p_value(texts, exact) < 1e-30
    assert mean(law, m) < mean(exact, m) - 0.01
    assert np.abs(law - exact).sum() / 2 > 0.05
    correct = PROCESS.denoiser(table(predicted(tilted(TEXTS, H * L * m).of_masked, V, L)))
    assert p_value(drawn(correct, by_count(PROCESS), L), exact) > 1e-4
    # Tokens that are independent of each other: no gap.
    one = np.random.default_rng(0).dirichlet(np.ones(V))
    free = naive(0) * 0 + one * np.exp(H * MEMBERS)
    law = law_one_at_a_time(free / free.sum(-1, keepdims=True))
    apart = Texts(np.prod(one[TEXTS.all], axis=1), V, L)
    np.testing.assert_allclose(law, tilted(apart, H * L * m).p, rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.5, 1.0)])
def test_a_field_in_an_interval_of_times_has_the_enumerated_law(low, high):
    steps = 4
    times = np.linspace(1, 0, steps + 1)
    law = law_in_steps([naive(H * (low <= t <= high)) for t in times[:-1]], times)
    field = magnet(PROCESS.denoiser(NETWORK), of_tokens(MEMBERS), within(H, low, high, off=0.0))
    assert p_value(drawn(field, ancestral(PROCESS), steps), law) > 1e-4


def test_a_field_at_some_positions_moves_those():
    values = jnp.asarray(np.array([0, 1, 0, 0])[:, None] * MEMBERS)
    denoiser = PROCESS.denoiser(NETWORK)
    x, t = jnp.full((1, L), V), jnp.ones(1)
    plain, moved = (
        np.asarray(jax.nn.softmax(d(x, t, {}).x_0)[0])
        for d in (denoiser, magnet(denoiser, of_tokens(values), H))
    )
    tilt = plain[1] * np.exp(H * MEMBERS)
    np.testing.assert_allclose(moved[1], tilt / tilt.sum(), rtol=1e-5)
    np.testing.assert_allclose(np.delete(moved, 1, 0), np.delete(plain, 1, 0), rtol=1e-6)
    assert magnet(denoiser, of_tokens(values), 0) is denoiser


WORDS = [(1, 2), (0,), (2, 2, 2), (1, 1, 1, 1, 1)]
WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0])


def test_words_are_counted_and_their_mean_is_that_of_independent_tokens():
    counts = np.array(
        [
            sum(
                WEIGHTS[i]
                for word in WORDS
                for i in range(L - len(word) + 1)
                if tuple(text[i : i + len(word)]) == word
            )
            for text in TEXTS.all
        ]
    )
    attribute = of_words(WORDS, jnp.asarray(WEIGHTS))
    np.testing.assert_allclose(attribute(one_hot(TEXTS.all)), counts, rtol=1e-6)
    p = RNG.dirichlet(np.ones(V), (1, L))
    of_text = np.prod(p[0][np.arange(L), TEXTS.all], axis=1)
    np.testing.assert_allclose(attribute(jnp.asarray(p))[0], of_text @ counts, rtol=1e-5)
    unit = of_words(WORDS)(one_hot(TEXTS.all))
    assert (unit == of_words(WORDS, jnp.ones(L))(one_hot(TEXTS.all))).all()


def test_the_field_of_a_word_completes_it_where_the_rest_of_it_stands():
    """`log q = log p + h p(the rest of the word)`, with known tokens known."""
    p = np.random.default_rng(5).dirichlet(np.ones(V), (1, L))
    denoiser = PROCESS.denoiser(lambda x_t, t, cond: jnp.log(jnp.asarray(p)))
    field = magnet(denoiser, of_words([(1, 2)]), H)
    push = field(jnp.array([[1, 3, 3, 0]]), jnp.ones(1), {}).x_0[0] - jnp.log(p[0])
    push = push - push.min(-1, keepdims=True)
    np.testing.assert_allclose(push[1], [0, H * p[0, 2, 2], H], atol=1e-5)
    np.testing.assert_allclose(push[2], [0, 0, H * p[0, 1, 1]], atol=1e-5)


@pytest.mark.parametrize("words", [[], [()], [(1, 2), ()]])
def test_words_without_tokens_are_refused(words):
    with pytest.raises(ValueError, match=r"words=.* must be one or more"):
        of_words(words)
