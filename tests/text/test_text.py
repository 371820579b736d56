"""Tokens and features of texts, compared with the published code.

The results of that code are in `reference/text.npz`, made by `reference/make_text.py`.
"""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.bert import Bert
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.weights import WeightsError, packaged_file, read_tensors
from diffusion_jax.text import load_encoder, load_tokeniser
from diffusion_jax.text.encoder import MINILM_FILE, MINILM_PACKAGE
from diffusion_jax.text.tokens import byte_rest, byte_tokens, pad
from tests.texts import (
    CAPTIONS,
    LENGTH,
    REFERENCE,
    TEXTS,
    TOKENISERS,
    TOWER,
    VOCABULARY,
    reference_tokens,
    weights_of,
    write_clip,
    write_tokeniser,
)

CASES = [f"{name}_{last}" for name in ("quick_gelu", "gelu") for last in ("plain", "projected")]


@pytest.fixture(scope="module")
def minilm():
    path = packaged_file(MINILM_PACKAGE, MINILM_FILE)
    if path is None:
        pytest.skip(f"{MINILM_PACKAGE} is not installed: see requirements-dev.txt")
    tokeniser = load_tokeniser(path.with_name("tokenizer.json"))
    return load_encoder(Bert(), path, tokeniser, 16)


def small_clip(folder, case="quick_gelu_plain", **changes):
    activation = case.rpartition("_")[0]
    path = write_clip(folder, case, **changes)
    net = TOWER.clone(activation=activation)
    return load_encoder(net, path, load_tokeniser(write_tokeniser(folder)), LENGTH)


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_tokens(found, expected):
    for text, ids, row in zip(TEXTS, found, expected, strict=True):
        assert ids[ids >= 0].tolist() == row.tolist(), text


@pytest.mark.parametrize("name", TOKENISERS)
def test_tokens_of_clip_are_those_of_the_published_code(tmp_path, name):
    write_tokeniser(tmp_path)
    tokeniser = load_tokeniser(tmp_path / name)
    assert (tokeniser.vocabulary, tokeniser.end) == (VOCABULARY, VOCABULARY - 1)
    ids, cut = tokeniser(TEXTS, 200)
    assert_tokens(ids, reference_tokens("clip"))
    assert not cut.any()


def test_long_texts_are_cut_but_for_their_last_token(tmp_path):
    tokeniser = load_tokeniser(write_tokeniser(tmp_path))
    ids, cut = tokeniser(TEXTS, 8)
    for row, short, was_cut in zip(reference_tokens("clip"), ids, cut, strict=True):
        assert was_cut == (len(row) > 8)
        expected = [*row[:7], row[-1]] if was_cut else row
        assert short[short >= 0].tolist() == list(expected)
    assert cut.sum() == sum(len(row) > 8 for row in reference_tokens("clip")) > 3
    assert pad([], 8).ids.shape == (0, 8)


def test_the_end_of_a_long_text_that_is_not_read_is_known(tmp_path):
    tokeniser = load_tokeniser(write_tokeniser(tmp_path))
    for text in TEXTS:
        rest = tokeniser.rest(text, 8)
        assert bool(rest) == tokeniser([text], 8).cut[0]
        assert text.endswith(rest)
        read = text[: len(text) - len(rest)]
        found, whole = (tokeniser([words], 8).ids[0] for words in (read, text))
        # The last token that is read may be the beginning of a word, or of a letter's bytes.
        same = 6 if text.isascii() else 2
        np.testing.assert_array_equal(found[:same], whole[:same])


@pytest.mark.parametrize("length", [3, 6, 9, 200])
def test_the_same_of_bytes_without_cutting_a_letter_in_two(length):
    for text in ("été et hiver", "日本", "\ud800abcdefg", ""):
        rest = byte_rest(text, length)
        read = text[: len(text) - len(rest)]
        assert bool(rest) == byte_tokens([text], length).cut[0]
        assert text == read + rest
        np.testing.assert_array_equal(
            byte_tokens([read], length).ids, byte_tokens([text], length).ids
        )


def test_the_length_is_that_asked_for_and_not_that_of_the_file(tmp_path):
    path = write_tokeniser(tmp_path)
    content = json.loads(path.read_text())
    cut = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    filled = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    filled |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    content |= {"truncation": cut, "padding": filled}
    path.write_text(json.dumps(content))
    assert_tokens(load_tokeniser(path)(TEXTS, 200).ids, reference_tokens("clip"))


def test_half_a_surrogate_pair_is_a_question_mark(tmp_path):
    tokeniser = load_tokeniser(write_tokeniser(tmp_path))
    np.testing.assert_array_equal(tokeniser(["a \ud83d"], 9).ids, tokeniser(["a ?"], 9).ids)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", "{", r"tokenizer\.json: not a readable tokeniser"),
        ("tokenizer.json", "<html>", r"tokenizer\.json: not a readable tokeniser"),
        ("vocab.json", '{"a": 0}', r"vocab\.json: not a readable tokeniser"),
        ("merges.txt", None, r"merges\.txt: no such file, which the tokeniser needs"),
    ],
)
def test_what_is_no_tokeniser_is_refused(tmp_path, name, content, says):
    write_tokeniser(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(WeightsError, match=says) as caught:
        load_tokeniser(tmp_path / ("vocab.json" if name == "merges.txt" else name))
    assert "\n" not in str(caught.value)


def test_a_tokeniser_without_beginning_and_end_is_refused(tmp_path):
    path = write_tokeniser(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    with pytest.raises(WeightsError, match="makes 0 tokens of an empty text, not the 2"):
        load_tokeniser(path)


@pytest.mark.parametrize("case", CASES)
def test_features_of_clip_are_those_of_the_published_code(tmp_path, case):
    encoder = small_clip(tmp_path, case)
    tokens = encoder.tokens(CAPTIONS)
    np.testing.assert_array_equal(tokens.ids, REFERENCE["clip_padded"])
    assert tokens.cut.tolist() == [False, False, False, False, True]
    found = encoder(CAPTIONS)
    for name in ("text", "pooled"):
        expected = REFERENCE[f"{case}_{name}"]
        assert found[name].dtype == np.float32
        assert relative_error(found[name], expected) < 2e-6
        assert np.abs(found[name] - expected).max() < 1e-5
    assert encoder.pads
    assert found["pooled"].shape == (5, encoder.pooled_width)


def test_the_activations_differ_by_more_than_the_error():
    first, second = (REFERENCE[f"{name}_plain_text"] for name in ("quick_gelu", "gelu"))
    assert relative_error(first, second) > 1e-3


def test_of_a_file_with_both_towers_the_one_is_read(tmp_path):
    more = {
        "vision_model.embeddings.class_embedding": np.zeros(3, np.float32),
        "visual_projection.weight": np.zeros((2, 3), np.float32),
        "logit_scale": np.zeros((), np.float32),
        "text_model.embeddings.position_ids": np.arange(LENGTH)[None],
    }
    found = small_clip(tmp_path, "quick_gelu_projected", **more)(CAPTIONS[:1])
    assert relative_error(found["text"], REFERENCE["quick_gelu_projected_text"][:1]) < 2e-6


FIRST = "text_model.encoder.layers.0.mlp.fc1.weight"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({FIRST: np.zeros((96, 32), np.float32)}, r"\[128, 32\], which in the file is \[96, 32\]"),
        ({FIRST: None}, r"layers\.0\.mlp\.fc1\.weight \[128, 32\], which the file lacks"),
        ({FIRST: np.zeros((128, 32), np.int32)}, "which in the file has dtype int32"),
        (
            {"text_model.encoder.layers.2.mlp.fc1.bias": np.zeros(128, np.float32)},
            r"layers\.2\.mlp\.fc1\.bias \[128\] is not part of clip",
        ),
        (
            {"text_projection.weight": np.zeros((), np.float32)},
            r"text_projection\.weight \[\] is not part of clip",
        ),
    ],
)
def test_other_weights_are_refused_by_name_and_shape(tmp_path, changes, says):
    with pytest.raises(WeightsError, match=says) as caught:
        small_clip(tmp_path, **changes)
    assert str(caught.value).startswith(f"{tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_tokeniser_of_another_network_is_refused(tmp_path):
    tokeniser = load_tokeniser(write_tokeniser(tmp_path))
    name = "text_model.embeddings.token_embedding.weight"
    path = write_clip(tmp_path, **{name: np.zeros((600, 32), np.float32)})
    with pytest.raises(WeightsError, match="clip has 600 tokens, and its tokeniser 538"):
        load_encoder(TOWER.clone(vocabulary=600), path, tokeniser, LENGTH)


def test_half_precision_is_read_and_computed_with_in_float32(tmp_path):
    exact = small_clip(tmp_path)(CAPTIONS[:2])["text"]
    for dtype, error in ((jnp.bfloat16, 3e-2), (np.float16, 4e-3)):
        halves = {name: value.astype(dtype) for name, value in weights_of(CASES[0]).items()}
        path = write_clip(tmp_path, **halves)
        assert read_tensors(path)[FIRST].dtype == dtype
        found = small_clip(tmp_path, **halves)(CAPTIONS[:2])["text"]
        assert found.dtype == np.float32
        assert 0 < relative_error(found, exact) < error


def test_files_that_are_no_safetensors_are_refused(tmp_path):
    path = write_clip(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"<html>not found</html>", whole[:100], whole[:-1], b"PK" + whole):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"not a file of safetensors.* cut short") as caught:
            read_tensors(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (Bert(), 22_713_216 - 384 * 385),  # without the layer of the class token, not used here
        (TextTower(), 123_060_480),  # Stable Diffusion v1-5's
        (TextTower(width=512, heads=8, projection=512), 63_428_096),  # of ViT-B/32
    ],
)
def test_sizes_are_the_published_ones(net, parameters):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 7), jnp.int32))
    assert sum(math.prod(a.shape) for a in jax.tree.leaves(shapes)) == parameters


def test_tokens_of_minilm_are_those_of_the_published_code(minilm):
    assert_tokens(minilm.tokens(TEXTS).ids, reference_tokens("minilm"))


def test_features_of_minilm_are_those_of_the_published_code(minilm):
    ids, cut = minilm.tokens(CAPTIONS)
    assert cut.tolist() == [False, False, False, False, True]
    found, there = minilm(CAPTIONS), ids >= 0
    assert np.abs(found["text"][there] - REFERENCE["minilm_text"]).max() < 1e-5
    assert np.abs(found["pooled"] - REFERENCE["minilm_pooled"]).max() < 1e-6
    assert np.abs(REFERENCE["minilm_text"]).max() > 1
    assert (~there).sum() > 10
    np.testing.assert_array_equal(found["text"][~there], 0.0)
    np.testing.assert_allclose(found["text"][1:2], minilm(CAPTIONS[1:2])["text"], atol=1e-6)
    assert minilm.identity.startswith("minilm 53aa51172d14, tokens ")
    assert (minilm.width, minilm.pooled_width, minilm.pads) == (384, 384, False)
