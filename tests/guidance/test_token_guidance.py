"""Guidance of tokens: the laws it samples from are those that can be enumerated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.guidance.extrapolation import autoguidance, classifier_free
from diffusion_jax.guidance.tokens import by_classifier
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.unmasking import ORDERS, by_count
from diffusion_jax.types import Denoised
from tests.tilted import every, law_one_at_a_time, predicted, table, tilted
from tests.token_oracles import Texts, chain

PROCESS, NUM, V = Masked(Polynomial(), 3), 30_000, 3


def drawn(denoiser, length, sampler=None, cond=(), num=NUM):
    """Texts, one token at a time."""
    keys = jax.random.split(jax.random.key(3), num)
    x_T = PROCESS.prior(keys, (length,), 1.0)
    times = jnp.linspace(1, 0, length + 1)
    cond = {name: jnp.full(num, value) for name, value in cond}
    draw = jax.jit(
        lambda x: sample(denoiser, sampler or by_count(PROCESS), times, x, cond, keys)[0]
    )
    return np.asarray(draw(x_T))


def p_value(texts, law):
    """Of the chi-square test that `texts` `[N, L]` are of the law `[V^L]`."""
    counts = np.bincount(texts @ V ** np.arange(texts.shape[1])[::-1], minlength=len(law))
    return stats.chisquare(counts, law / law.sum() * len(texts)).pvalue


def pair(length):
    """Two laws of texts, and a denoiser of the first given label 0, of the second without."""
    draw = np.random.default_rng(length)
    laws = [Texts(draw.dirichlet(np.full(V**length, 2.0)), V, length) for _ in range(2)]
    own, free = (table(predicted(law.of_masked, V, length)) for law in laws)

    def network(x_t, t, cond):
        return jnp.where((cond["label"] == 0)[:, None, None], own(x_t, t, {}), free(x_t, t, {}))

    return laws, network


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_classifier_free_guidance_has_the_tilted_law_of_one_token(scale):
    (own, free), network = pair(1)
    law = own.p**scale * free.p ** (1 - scale)
    guided = classifier_free(PROCESS.denoiser(network), scale)
    assert p_value(drawn(guided, 1, cond=[("label", 0)]), law) > 1e-4


def test_of_two_tokens_it_deviates_from_the_tilted_law_as_enumerated():
    (own, free), network = pair(2)
    p, q = (predicted(law.of_masked, V, 2) for law in (own, free))
    law = law_one_at_a_time((guided := p**2.5 * q**-1.5) / guided.sum(-1, keepdims=True))
    exact = own.p**2.5 * free.p**-1.5
    texts = drawn(classifier_free(PROCESS.denoiser(network), 2.5), 2, cond=[("label", 0)])
    assert p_value(texts, law) > 1e-4
    assert np.abs(law - exact / exact.sum()).sum() / 2 > 0.1
    assert p_value(texts, exact) < 1e-30


def test_compositions_and_autoguidance_multiply_laws():
    """`p_a p_b / p_none` of each token for two conditions of weight 1."""
    p = np.random.default_rng(0).dirichlet(np.ones(V), (3, 2))  # none, a, b

    def denoise(x_t, t, cond):
        return Denoised(jnp.log(jnp.asarray(p, jnp.float32))[cond["label"] + 1])

    x, t, cond = jnp.full((1, 2), V), jnp.ones(1), {"label": jnp.zeros(1, int)}
    both = classifier_free(denoise, 1.0, others=[({"label": jnp.ones(1, int)}, 1.0)])
    apart = autoguidance(denoise, lambda *_: Denoised(jnp.log(p[:1])), 3.0)
    for guided, law in ((both, p[1] * p[2] / p[0]), (apart, p[1] ** 3 / p[0] ** 2)):
        found = jax.nn.softmax(guided(x, t, cond).x_0)[0]
        np.testing.assert_allclose(found, law / law.sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("name", ORDERS)
def test_orders_do_not_see_the_constants_of_guided_laws(name):
    denoiser = PROCESS.denoiser(table(predicted(chain().of_masked, V, 4)))
    constants = jnp.array([0.0, 4.0, -3.0, 1.0])[:, None]

    def shifted(x_t, t, cond):
        return Denoised(denoiser(x_t, t, cond).x_0 + constants)

    sampler = by_count(PROCESS, ORDERS[name])
    same = drawn(denoiser, 4, sampler, num=500) == drawn(shifted, 4, sampler, num=500)
    assert same.all(axis=1).mean() > 0.99


def judged():
    """A chain, `p(y | x)` of its texts, the law given y, and the exact classifier of masks."""
    texts = chain()
    p_y = np.random.default_rng(1).uniform(0.05, 0.95, len(texts.p))
    states = every(V + 1, 4)
    fits = np.all((states[:, None] == texts.all) | (states[:, None] == V), axis=-1)
    log_p_y = jnp.asarray(np.log(fits @ (texts.p * p_y) / (fits @ texts.p)))

    def log_prob(one_hot, t, cond):
        return log_p_y[jnp.argmax(one_hot, -1) @ (V + 1) ** jnp.arange(4)[::-1]]

    return texts, tilted(texts, np.log(p_y)), log_prob


def test_the_exact_classifier_gives_the_exact_denoiser():
    texts, given, log_prob = judged()
    denoiser = PROCESS.denoiser(texts.of_masked)
    guided = by_classifier(denoiser, log_prob, 1.0, at_once=5)
    states = every(V + 1, 4)
    masked = states == V
    p = predicted(lambda *a: guided(*a).x_0, V, 4)
    exact = predicted(given.of_masked, V, 4)
    assert np.abs(predicted(texts.of_masked, V, 4) - exact)[masked].max() > 0.1
    np.testing.assert_allclose(p[masked], exact[masked], rtol=2e-4)
    assert p_value(drawn(PROCESS.denoiser(table(p)), 4), given.p) > 1e-4


def test_the_first_order_is_exact_for_linear_classifiers_and_scales_may_depend_on_time():
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(4, V + 1)))

    def log_prob(one_hot, t, cond):
        return jnp.sum(one_hot * weights * cond["sign"][:, None, None], axis=(1, 2))

    denoiser = PROCESS.denoiser(chain().of_masked)
    x_t = jnp.asarray(every(V + 1, 4)[::7])
    t = jnp.linspace(0.1, 1, len(x_t))
    cond = {"sign": jnp.sign(jnp.sin(jnp.arange(len(x_t))) + 0.1)}
    late = lambda t: jnp.where(t < 0.5, 2.0, 0.0)  # noqa: E731
    found = [
        jax.nn.softmax(by_classifier(denoiser, log_prob, late, first)(x_t, t, cond).x_0)
        for first in (False, True)
    ]
    plain = jax.nn.softmax(denoiser(x_t, t, cond).x_0)
    np.testing.assert_allclose(*found, rtol=1e-4)
    np.testing.assert_allclose(found[0][t > 0.5], plain[t > 0.5], rtol=1e-6)
    push = 2 * cond["sign"][:, None, None] * weights[:, :V]
    right = jax.nn.softmax(jnp.log(plain) + push)
    np.testing.assert_allclose(found[0][t < 0.5], right[t < 0.5], rtol=1e-4)
    assert by_classifier(denoiser, log_prob, 0) is denoiser
