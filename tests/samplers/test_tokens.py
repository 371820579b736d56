"""Samplers of tokens have the law that can be enumerated."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.tokens import Cosine, Masked, Polynomial, Replaced
from diffusion_jax.samplers.loop import run, sample
from diffusion_jax.samplers.replacement import replacement
from diffusion_jax.samplers.unmasking import (
    ORDERS,
    ancestral,
    by_count,
    first_hitting,
    remasking,
)
from diffusion_jax.types import Denoised
from tests.token_oracles import chain

TEXTS = chain()
NUM = 100_000
MASKED = {"linear": Masked(Polynomial(), 3), "cosine": Masked(Cosine(), 3)}


def drawn(process, network, sampler, steps, num=NUM, x_T=None):
    """Texts `[num, L]` after `steps`, evenly in time, or along these times."""
    keys = jax.random.split(jax.random.key(3), num)
    times = jnp.linspace(1, 0, steps + 1) if isinstance(steps, int) else steps
    if x_T is None:
        x_T = process.prior(jax.random.split(jax.random.key(4), num), (TEXTS.length,), times[0])
    draw = jax.jit(lambda x: sample(process.denoiser(network), sampler, times, x, {}, keys)[0])
    return np.asarray(draw(x_T))


def p_value(texts, law):
    """Of the chi-square test that `texts` are of the law `[V^L]`."""
    counts = np.bincount(TEXTS.number(texts), minlength=len(law))
    rare = law * len(texts) < 5
    assert not counts[law == 0].any()
    f_obs = np.append(counts[~rare], counts[rare].sum())
    f_exp = np.append(law[~rare], law[rare].sum()) * len(texts)
    kept = f_exp > 0
    return stats.chisquare(f_obs[kept], f_exp[kept]).pvalue


def every(symbols):
    """All rows of L symbols, as many as `symbols^L`."""
    return np.array(list(itertools.product(range(symbols), repeat=TEXTS.length)))


def chained(states, first, steps):
    """The law `[S]` of `states` after `steps`, laws `[S, L, symbols]` of single tokens.

    In a step tokens change independently of each other.
    """
    for each in steps:
        places = range(TEXTS.length)
        first = first @ np.prod([each[:, i][:, states[:, i]] for i in places], axis=0)
    return first / first.sum()


@functools.cache
def law_of_masks(name, times, strength=0.0, rule="cap", window=(0, 1)):
    """The law of ancestral steps, or with remasking where the share of masks is in a window."""
    process, states = MASKED[name], every(4)
    p = np.exp(_logits(states))
    masked = states == 3
    times = np.linspace(1, 0, times + 1) if isinstance(times, int) else np.array(times)
    lost = np.asarray(process.schedule.lost(jnp.asarray(times)), np.float64)

    def laws():
        for a, b in itertools.pairwise(lost):
            most = min(1, b / max(1 - a, 1e-300))
            sigma = min(strength, most) if rule == "cap" else strength * most
            sigma = sigma if window[0] <= a <= window[1] else 0
            fill = (a - b + sigma * (1 - a)) / a
            each = np.zeros((*states.shape, 4))
            each[..., :3] = np.where(masked[..., None], fill * p, 0)
            each[..., 3] = np.where(masked, 1 - fill, sigma)
            rows = np.nonzero(~masked)
            each[(*rows, states[rows])] = 1 - sigma
            yield each

    law = chained(states, np.all(masked, axis=1).astype(float), laws())
    return law[~masked.any(axis=1)]


@functools.cache
def law_of_replaced(steps, renewal):
    """The law of steps of uniform noise with the linear schedule."""
    states = every(3)
    times, network = np.linspace(1, 0, steps + 1), TEXTS.of_replaced(lambda t: t, others=False)
    unit = np.eye(3)

    def laws():
        for t, s in itertools.pairwise(times):
            logits = network(jnp.asarray(states), jnp.full(len(states), t), {})
            p = np.asarray(jax.nn.softmax(logits), np.float64)
            kept = (1 - t) / (1 - s)
            near_x = (1 - kept) / 3 + kept * unit[states]  # [S, L, j]
            near_v = s / 3 + (1 - s) * unit  # [v, j]
            step = near_x[:, :, None] * near_v
            step /= step.sum(-1, keepdims=True)
            step = (1 - renewal) * step + renewal * near_v
            yield np.einsum("slv,slvj->slj", p, step)

    return chained(states, np.full(len(states), 1 / len(states)), laws())


@jax.jit
def _exact(x):
    return jax.nn.log_softmax(TEXTS.of_masked(x, None, {}))


def _logits(seen):
    return np.asarray(_exact(jnp.asarray(seen)), np.float64)


def kl(law):
    return float(np.sum(TEXTS.p * np.log(TEXTS.p / law)))


@pytest.mark.parametrize(("name", "steps"), [("linear", 1), ("linear", 4), ("cosine", 3)])
def test_ancestral_steps_have_the_enumerated_law(name, steps):
    process, law = MASKED[name], law_of_masks(name, steps)
    for cached in (False, True):
        texts = drawn(process, TEXTS.of_masked, ancestral(process, cached), steps)
        assert p_value(texts, law) > 1e-4


def test_the_distance_falls_with_the_square_of_the_number_of_steps():
    """Two tokens fall into one step with a probability of 1 / K, and KL is quadratic in that."""
    for name in MASKED:
        distances = [kl(law_of_masks(name, steps)) for steps in (1, 32, 64)]
        assert distances[0] > 100 * distances[1]
        assert 3.3 < distances[1] / distances[2] < 4.2


@pytest.mark.parametrize("name", ["random", "left_to_right", "entropy", "margin"])
def test_orders_that_are_decided_before_the_draw_are_exact_one_at_a_time(name):
    process = MASKED["linear"]
    texts = drawn(process, TEXTS.of_masked, by_count(process, ORDERS[name]), TEXTS.length)
    assert p_value(texts, TEXTS.p) > 1e-4


def test_the_order_by_confidence_is_biased_as_enumerated():
    """Of all places the draw with the largest probability is kept: the others are thrown away."""
    law = {(3,) * TEXTS.length: 1.0}
    for _ in range(TEXTS.length):
        after: dict = {}
        for seen, share in law.items():
            p = np.exp(_logits(np.array([seen])))[0]
            free = [i for i in range(TEXTS.length) if seen[i] == 3]
            for tokens in itertools.product(range(3), repeat=len(free)):
                chance = np.prod([p[i, v] for i, v in zip(free, tokens, strict=True)])
                best = max(range(len(free)), key=lambda j: p[free[j], tokens[j]])
                text = list(seen)
                text[free[best]] = tokens[best]
                after[tuple(text)] = after.get(tuple(text), 0) + share * chance
        law = after
    exact = np.array([law.get(tuple(text), 0.0) for text in TEXTS.all.tolist()])
    exact /= exact.sum()
    process = MASKED["linear"]
    sampler = by_count(process, ORDERS["confidence"])
    texts = drawn(process, TEXTS.of_masked, sampler, TEXTS.length)
    assert p_value(texts, exact) > 1e-4
    assert kl(exact) > 0.1


def test_several_at_a_time_are_independent():
    process = MASKED["linear"]
    texts = drawn(process, TEXTS.of_masked, by_count(process), 2)
    law = np.zeros(len(TEXTS.p))
    for first in itertools.combinations(range(4), 2):
        seen = np.full_like(TEXTS.all, 3)
        p = np.ones(len(law))
        for group in (first, [i for i in range(4) if i not in first]):
            each = np.exp(_logits(seen))
            for i in group:
                p = p * each[np.arange(len(p)), i, TEXTS.all[:, i]]
                seen[:, i] = TEXTS.all[:, i]
        law += p / 6
    assert p_value(texts, law / law.sum()) > 1e-4


@pytest.mark.parametrize(("strength", "rule", "steps"), [(0.3, "cap", 6), (0.9, "rescale", 3)])
def test_remasking_has_the_enumerated_law(strength, rule, steps):
    process = MASKED["linear"]
    texts = drawn(process, TEXTS.of_masked, remasking(process, strength, rule), steps)
    assert p_value(texts, law_of_masks("linear", steps, strength, rule)) > 1e-4


def test_remasking_while_the_time_stands_still_has_the_enumerated_law():
    """ReMDM's loop: of eight steps two stay at a share of masks of 0.4, and one begins there."""
    times = time_grids.held(8, at=0.4, begin=0.7, end=0.3)
    assert np.sum(np.asarray(times) == np.float32(0.4)) == 3
    np.testing.assert_array_equal(times[jnp.array([0, -1])], [1, 0])
    sampler = remasking(MASKED["linear"], 0.3, low=0.4, high=0.4)
    texts = drawn(MASKED["linear"], TEXTS.of_masked, sampler, times)
    times = tuple(np.asarray(times, np.float64).tolist())
    law = law_of_masks("linear", times, 0.3, window=(0.39, 0.41))
    assert p_value(texts, law) > 1e-4
    assert kl(law) < kl(law_of_masks("linear", times))
    denoiser = MASKED["linear"].denoiser(TEXTS.of_masked)
    keys = jax.random.split(jax.random.key(6), 500)
    x_T, times = jnp.full((500, TEXTS.length), 3), jnp.asarray(times)
    states = np.asarray(run(denoiser, sampler, times, x_T, {}, keys, keep_every=1).kept)
    again = np.any((states[:-1] != 3) & (states[1:] == 3), axis=(1, 2))
    np.testing.assert_array_equal(again, times[:-1] == np.float32(0.4))


@pytest.mark.parametrize("name", MASKED)
def test_first_hitting_has_the_law_of_infinitely_many_steps(name):
    process = MASKED[name]
    texts = drawn(process, TEXTS.of_masked, first_hitting(process), TEXTS.length)
    assert p_value(texts, TEXTS.p) > 1e-4
    # With one step all are filled independently of each other.
    texts = drawn(process, TEXTS.of_masked, first_hitting(process), 1)
    assert p_value(texts, law_of_masks(name, 1)) > 1e-4

    def of_time(x_t, t, cond):
        """Logits of the token that is the third of `1 - alpha_t`: 0 up to 0.2, 1 up to 0.5, 2."""
        lost = process.schedule.lost(t)
        third = (lost > 0.2).astype(int) + (lost > 0.5)
        logits = jnp.where(third[:, None] == jnp.arange(3), 0.0, -1e9)
        return jnp.broadcast_to(logits[:, None], (*x_t.shape, 3))

    # Each token is found at a time of its own, uniform in `1 - alpha_t`.
    texts = drawn(process, of_time, first_hitting(process), TEXTS.length + 2)
    law = np.prod(np.array([0.2, 0.3, 0.5])[TEXTS.all], axis=1)
    assert p_value(texts, law) > 1e-4


@pytest.mark.slow
def test_predictions_are_used_again_while_nothing_changes():
    process, times, num = MASKED["linear"], jnp.linspace(1, 0, 65), 8
    keys = jax.random.split(jax.random.key(5), num)
    x_T = process.prior(keys, (TEXTS.length,), times[0])
    denoiser = process.denoiser(TEXTS.of_masked)

    def one(cached, x, key):
        sampler = ancestral(process, cached)
        return run(denoiser, sampler, times, x[None], {}, key[None])

    for x, key in zip(x_T, keys, strict=True):
        np.testing.assert_array_equal(one(True, x, key).x, one(False, x, key).x)
        kept = run(denoiser, ancestral(process), times, x[None], {}, key[None], keep_every=1).kept
        changed = np.any(np.diff(np.asarray(kept)[:, 0], axis=0), axis=-1)
        # Once in the beginning, and after each change but one in the last step.
        needed = 1 + changed[:-1].sum()
        assert one(True, x, key).state.evaluations == needed <= 1 + TEXTS.length


def test_known_tokens_stay_and_the_rest_is_of_their_conditional_law():
    process = MASKED["linear"]
    known = np.array([3, 1, 3, 0], np.int32)
    x_T = jnp.broadcast_to(jnp.asarray(known), (NUM, 4))
    fits = (TEXTS.all[:, 1] == 1) & (TEXTS.all[:, 3] == 0)
    law = np.where(fits, TEXTS.p, 0) / TEXTS.p[fits].sum()
    hitting = first_hitting(process)
    for sampler in (by_count(process, ORDERS["entropy"]), by_count(process), hitting):
        texts = drawn(process, TEXTS.of_masked, sampler, 4, x_T=x_T)
        assert p_value(texts, law) > 1e-4
    for sampler in (remasking(process, 0.4), ancestral(process)):
        texts = drawn(process, TEXTS.of_masked, sampler, 8, num=1000, x_T=x_T[:1000])
        assert (texts[:, [1, 3]] == [1, 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("share", "rare"), [(2.0**-16, 2.0**-8), (1.0, 2.0**-24)])
def test_rare_tokens_are_drawn_as_often_as_they_should_be(share, rare):
    """One step that fills a share of the masks, of 256 equal tokens; or one rare 255 times.

    From numbers of 23 bits tokens would come `1 / (n (exp(1 / n) - 1))` = 0.31 times as often, with
    the `n = 2^23 share rare` = 1/2: the first in one draw from tokens and mask, the second in any.
    """
    p = jnp.log(jnp.append(jnp.full(255, rare), 1 - 255 * rare))
    process, num, places = Masked(Polynomial(), 256), 64, 2**10
    x = jnp.full((num, places), process.mask)
    denoise = lambda x_t, t: Denoised(jnp.broadcast_to(p, (*x_t.shape, 256)))  # noqa: E731

    def count(key):
        keys = jax.random.split(key, num)
        x_s, _ = ancestral(process).step(denoise, (), x, jnp.array(1.0), jnp.array(1 - share), keys)
        return jnp.sum(x_s < 255)

    counts = jax.jit(
        lambda keys: jax.lax.map(count, keys),
        compiler_options={"xla_backend_optimization_level": 2},
    )(jax.random.split(jax.random.key(0), 32))
    expected = 32 * num * places * share * 255 * rare  # 32
    assert stats.poisson.cdf(counts.sum(), expected) > 1e-3
    assert stats.poisson.sf(counts.sum(), expected) > 1e-3


@pytest.mark.parametrize("renewal", [0.0, 0.3])
@pytest.mark.parametrize("steps", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_steps_of_uniform_noise_have_the_enumerated_law(steps, renewal):
    process = Replaced(Polynomial(), 3)
    network = TEXTS.of_replaced(process.schedule.lost, others=True)
    texts = drawn(process, network, replacement(process, renewal), steps)
    assert p_value(texts, law_of_replaced(steps, renewal)) > 1e-4


def test_uniform_noise_is_removed_with_many_steps():
    distances = [kl(law_of_replaced(steps, 0.0)) for steps in (4, 16, 64)]
    assert distances[0] > 2 * distances[1] > 4 * distances[2]
