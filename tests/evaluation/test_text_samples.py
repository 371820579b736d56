"""Metrics of texts that a model writes."""

import numpy as np
import pytest

from diffusion_jax.data import ArraySource, Dataset, Split
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.evaluation.texts import TextSamples
from diffusion_jax.metrics.texts import entropies, longest_copied, pooled_entropies
from tests.evaluation.models import model_of

LENGTH, LETTERS = 24, " abcdefgn"
REFERENCE = "a bad cab faced a dead egg and a fed bee bagged a beaded cabbage"
rng = np.random.default_rng(0)


def items_of(texts):
    return np.array([[LETTERS.index(each) for each in text[:LENGTH]] for text in texts], np.int32)


HELDOUT = items_of([" dead bee faced a fed cab", " gag gabbed a bad deed fad"])
KIND = Tokens((LENGTH,), tuple(LETTERS))
SPLITS = {
    name: Split(ArraySource(items, np.zeros(len(items), np.int32)))
    for name, items in {"train": np.zeros_like(HELDOUT[:1]), "heldout": HELDOUT}.items()
}
DATASET = Dataset("sentences", KIND, SPLITS, fingerprint="f")


def measured(chunks, **settings):
    evaluator = TextSamples(DATASET, REFERENCE, 100, 200, **settings)
    labelled = [(items, None) for items in chunks]
    return evaluator(model_of(DATASET, chunks=labelled, passport={"seed": 3})), evaluator


def test_samples_are_measured_in_all_their_chunks():
    items = rng.integers(0, len(LETTERS), (9, LENGTH)).astype(np.int32)
    items[:1] = items_of([REFERENCE])
    found, _ = measured([items[:5], items[5:]])
    for n in (1, 3):
        assert found[f"entropy_{n}"]["value"] == pytest.approx(entropies(items, n).mean())
        pool = found[f"entropy_{n}_pool"]["value"]
        assert pool == pytest.approx(pooled_entropies(items, n).mean())
    copied = longest_copied(KIND.text(items), REFERENCE)
    assert found["copied_median"]["value"] == np.median(copied)
    largest = found["copied_largest"]
    assert (largest["value"], largest["high"]) == (copied.max(), LENGTH)
    for name, entry in found.items():
        assert entry["low"] <= entry["value"] <= entry["high"], name
        assert entry["n"] <= 9
        assert entry["passport"]["seed"] == 3
        assert entry["passport"]["reference"] == "sentences train f"
        assert entry["passport"]["window"] == KIND.words


def test_real_words_are_those_of_the_training_text_or_of_a_list():
    texts = items_of(["d bad fad bee egg ggg gg f", "d bad bad bad ggg gg f gg"])
    found, _ = measured([texts])  # without "d", and the last, which the window cuts
    assert found["real_words"]["value"] == pytest.approx((3 + 3) / (5 + 6))
    found, _ = measured([texts], known={"ggg"})
    assert found["real_words"]["value"] == pytest.approx(2 / 11)
    assert found["real_words"]["passport"]["known_words"].startswith("1, ")


def test_copies_stand_out_from_held_out_texts():
    copies = items_of([REFERENCE[:LENGTH], REFERENCE[7 : 7 + LENGTH], REFERENCE[-LENGTH:]])
    found, evaluator = measured([copies])
    honest = evaluator.of_data({"seed": 4})
    assert {name.removesuffix("_heldout") for name in honest} == found.keys()
    assert found["copied_median"]["value"] == LENGTH
    texts = KIND.text(HELDOUT)
    assert honest["copied_median_heldout"]["value"] == np.median(longest_copied(texts, REFERENCE))
    assert honest["copied_largest_heldout"]["value"] < LENGTH
    assert honest["entropy_1_heldout"]["n"] == 2
    assert honest["entropy_1_heldout"]["passport"]["seed"] == 4


def test_too_few_samples_and_texts_without_words_are_left_out():
    found, _ = measured([HELDOUT[:1]])
    assert all(entry["value"] is None for entry in found.values())
    assert found["entropy_1"]["left_out"] == "2 samples are needed, and there are 1"
    found, _ = measured([np.zeros((3, LENGTH), np.int32)])
    assert found["real_words"]["left_out"] == "2 samples with words are needed, and there are 0"
    assert found["entropy_1"]["value"] == 0
