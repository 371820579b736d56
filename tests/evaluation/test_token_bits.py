"""Bits of tokens are the entropy of the source, with exact denoisers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import ArraySource, Dataset, Split
from diffusion_jax.data.sets.hidden_markov import HiddenMarkov, WindowSource
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.diffusion.tokens import Cosine, Masked, Polynomial, Replaced, found_share
from diffusion_jax.evaluation.token_bits import Likelihood, TokenBits, step_weights
from diffusion_jax.generation.generator import Generator
from diffusion_jax.samplers.unmasking import ancestral
from tests.evaluation.models import model_of
from tests.token_oracles import Markov, chain

LENGTH, NUM = 6, 600
CYCLE = 0.85 * np.eye(3) + 0.05  # each token tells much of the others
LAW = HiddenMarkov(CYCLE[[1, 2, 0]], CYCLE)
PIECES = "a", "bc", "d"
STEPS = jnp.asarray([1.0, 0.6, 0.0])
EXACT = Markov(LAW)
NETWORK = lambda params, x_t, t, cond: EXACT.of_masked(x_t, t, cond) * params  # noqa: E731


def dataset_of(train, heldout, length):
    splits = {"train": Split(train), "heldout": Split(heldout)}
    return Dataset("source", Tokens((length,), PIECES), splits, fingerprint="f")


SOURCES = [WindowSource(LAW, LENGTH, NUM, seed) for seed in (0, 1)]
DATASET = dataset_of(*SOURCES, LENGTH)


def bits(evaluator, network=NETWORK, params=1.0, dataset=DATASET, schedule=None):
    process = Masked(schedule or Cosine(), 3)
    generator = Generator(network, process, Identity((LENGTH,)), ancestral(process), STEPS)
    return evaluator(model_of(dataset, generator, params, passport={"seed": 0}))


def left_to_right(params, denoiser, x_0, cond, keys):
    """`-log p`, one token after another."""
    places = jnp.arange(x_0.shape[1])

    def at(place):
        x_t = jnp.where(places < place, x_0, 3)
        log_p = denoiser(x_t, jnp.ones(len(x_0)), cond).x_0[:, place]
        return -jnp.take_along_axis(log_p, x_0[:, place, None], -1)[:, 0]

    return jax.lax.map(at, places).sum(0)


LEFT_TO_RIGHT = {"exact": Likelihood(left_to_right, "left to right", LENGTH)}


def test_with_the_exact_denoiser_they_are_the_entropy():
    found = bits(TokenBits(NUM, 4, 300, LEFT_TO_RIGHT))
    for split, source in (("train", SOURCES[0]), ("heldout", SOURCES[1])):
        tokens, _ = source.gather(np.arange(NUM))
        characters = (1 + (tokens == 1)).sum()  # of which "bc" has two
        entropy = -LAW.log_prob(tokens).sum() / np.log(2) / characters
        exact, regret = found[f"bits_exact_{split}"], found[f"regret_exact_{split}"]
        assert exact["value"] == pytest.approx(entropy, rel=1e-5)
        assert found[f"bits_source_{split}"]["value"] == pytest.approx(entropy)
        assert abs(regret["value"]) + abs(regret["high"] - regret["low"]) < 1e-4
        bound, regret = found[f"bits_bound_{split}"], found[f"regret_bound_{split}"]
        assert bound["low"] < entropy < bound["high"]
        assert regret["low"] < 0 < regret["high"]
        assert bound["value"] - entropy == pytest.approx(regret["value"])
        # Pairs are alike, and so their difference is known better.
        assert regret["high"] - regret["low"] < 0.6 * (bound["high"] - bound["low"])
        # Tokens that are found together are not drawn together.
        assert found[f"regret_ancestral_{split}"]["low"] > 0
        passport = bound["passport"]
        assert (bound["n"], passport["evaluations"]) == (NUM, 4)
        assert passport["reference"] == f"source {split} f"
        assert passport["tokeniser"].startswith("3 pieces, ")
        assert "2 steps" in found[f"bits_ancestral_{split}"]["passport"]["estimator"]


def test_a_wrong_denoiser_has_regret():
    """A network that is too uncertain."""
    found = bits(TokenBits(NUM, 4, 300), params=0.5)
    assert found["regret_bound_heldout"]["low"] > 0.02


def test_only_what_is_asked_and_can_be_measured():
    zeros = np.zeros((NUM, LENGTH), np.int32)
    few = dataset_of(ArraySource(zeros, zeros[:, 0]), ArraySource(zeros[:1], zeros[:1, 0]), LENGTH)
    found = bits(TokenBits(3, 0, 20, LEFT_TO_RIGHT), dataset=few)
    assert found.keys() == {"bits_exact_train", "bits_exact_heldout"}  # no law is known
    assert found["bits_exact_train"]["n"] == 3
    assert found["bits_exact_heldout"]["left_out"].startswith("2 held-out texts are needed")


def test_the_bound_by_masks_needs_the_masked_process():
    process = Replaced(Cosine(), 3)
    generator = Generator(
        NETWORK, process, Identity((LENGTH,)), ancestral(Masked(Cosine(), 3)), STEPS
    )
    with pytest.raises(ValueError, match="needs the masked process"):
        TokenBits(NUM, 4, 20)(model_of(DATASET, generator, 1.0))


@pytest.mark.parametrize("schedule", [Cosine(), Polynomial(2.0)])
def test_the_bound_of_steps_is_the_sum_over_all_masks(schedule, x64):
    """By enumeration: all texts of a chain, all masks, all steps."""
    texts, process = chain(), Masked(schedule, 3)
    x_0 = texts.all
    lost, share = schedule.lost(STEPS[:-1]), found_share(process.schedule, STEPS[:-1], STEPS[1:])
    expected, by_number = 0.0, np.zeros(texts.length + 1)
    for mask in itertools.product([False, True], repeat=texts.length):
        logits = texts.of_masked(jnp.where(jnp.asarray(mask), 3, x_0), None, {})
        surprise = -jnp.take_along_axis(jax.nn.log_softmax(logits), x_0[..., None], -1)[..., 0]
        total = float(texts.p @ jnp.sum(jnp.where(jnp.asarray(mask), surprise, 0), 1))
        num = sum(mask)
        expected += float(share @ (lost**num * (1 - lost) ** (texts.length - num))) * total
        by_number[num] += total
    choices = np.array([1, 4, 6, 4, 1])  # masks with each number
    weights = step_weights(process, STEPS, texts.length)
    assert expected > texts.entropy + 0.01
    np.testing.assert_allclose(weights @ (by_number / choices), expected, rtol=1e-6)


def test_with_many_steps_weights_are_those_of_the_continuous_bound():
    for schedule in (Cosine(), Polynomial(2.0)):
        weights = step_weights(Masked(schedule, 3), jnp.linspace(1, 0, 20_001), LENGTH)
        np.testing.assert_allclose(weights[1:], 1 / np.arange(1, LENGTH + 1), rtol=2e-3)
