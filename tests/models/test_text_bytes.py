"""Byte tokens, and the text encoder that is trained on them from scratch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.attention import masked_attention, token_mask
from diffusion_jax.models.clip import TextTower
from diffusion_jax.text import BYTE_END, BYTE_VOCABULARY, byte_tokens
from diffusion_jax.text.tokens import BYTE_START
from tests.texts import TEXTS

LENGTH = 12
SMALL = {"vocabulary": BYTE_VOCABULARY, "end": BYTE_END, "activation": "gelu"}
TOWER = TextTower(positions=2 * LENGTH, width=16, depth=2, heads=2, causal=False, **SMALL)
WORDS = ["a cat", "", "dogs", "many cats", "ein Hund"]


def test_bytes_stand_between_a_beginning_and_an_end():
    ids, cut = byte_tokens(["", "aé", "🐶"], 7)
    assert ids.dtype == np.int32
    first, last = BYTE_START, BYTE_END
    expected = [
        [first, last, -1, -1, -1, -1, -1],
        [first, 97, 0xC3, 0xA9, last, -1, -1],
        [first, 0xF0, 0x9F, 0x90, 0xB6, last, -1],
    ]
    assert ids.tolist() == expected
    assert not cut.any()
    assert byte_tokens([], 7).ids.shape == (0, 7)


@pytest.mark.parametrize("length", [3, 4, 5, 6, 7, 8, 20])
def test_bytes_of_long_texts_end_with_a_whole_character(length):
    ids, cut = byte_tokens(TEXTS, length)
    assert ids.shape == (len(TEXTS), length)
    assert ids.max() < BYTE_VOCABULARY
    for text, row, was_cut in zip(TEXTS, ids, cut, strict=True):
        tokens = row[row >= 0]
        assert (tokens[0], tokens[-1]) == (BYTE_START, BYTE_END)
        kept = bytes(tokens[1:-1].tolist()).decode()
        assert text.startswith(kept)
        assert was_cut == (kept != text)
        if was_cut:  # by no more than it must be
            assert len((kept + text[len(kept)]).encode()) > length - 2


def test_half_a_surrogate_pair_is_a_question_mark():
    np.testing.assert_array_equal(byte_tokens(["\ud83d!"], 9).ids, byte_tokens(["?!"], 9).ids)


@pytest.fixture(scope="module")
def tower():
    """`tokens -> features, vectors` of a tower with drawn weights, and these."""
    tokens = jnp.asarray(byte_tokens(WORDS, LENGTH).ids)
    variables = jax.jit(TOWER.init)(jax.random.key(0), tokens)
    run = jax.jit(TOWER.apply)
    return lambda tokens: run(variables, jnp.asarray(tokens)), variables


def test_no_text_is_all_zeros(tower):
    ids = byte_tokens(WORDS, LENGTH).ids
    ids[2] = -1
    features, pooled = tower[0](ids)
    assert features.shape == (5, LENGTH, 16)
    assert pooled.shape == (5, 16)
    np.testing.assert_array_equal(features[ids < 0], 0.0)
    assert np.all(np.any(features[ids >= 0] != 0, axis=-1))
    np.testing.assert_array_equal(pooled[2], 0.0)
    assert np.all(np.any(pooled[jnp.array([0, 1, 3, 4])] != 0, axis=-1))


def test_padding_and_other_texts_have_no_effect(tower):
    ids = byte_tokens(WORDS, LENGTH).ids
    features, pooled = tower[0](ids)
    longer = byte_tokens(["other", *WORDS[::-1]], 2 * LENGTH).ids
    longer[0] = -1
    more, vectors = tower[0](longer)
    np.testing.assert_allclose(more[:0:-1, :LENGTH], features, atol=2e-6)
    np.testing.assert_allclose(vectors[:0:-1], pooled, atol=2e-6)
    np.testing.assert_array_equal(more[:, LENGTH:], 0.0)


def test_a_token_sees_later_ones_only_if_the_tower_is_not_causal(tower):
    here, there = byte_tokens(["same one", "same two"], LENGTH).ids[:, None]
    shared = 6  # the beginning and "same "
    features, others = (np.asarray(tower[0](ids)[0])[0, :shared] for ids in (here, there))
    assert np.all(np.any(np.abs(features - others) > 1e-4, axis=-1))
    causal = jax.jit(TOWER.clone(causal=True).apply)
    features, others = (np.asarray(causal(tower[1], ids)[0])[0] for ids in (here, there))
    np.testing.assert_allclose(features[:shared], others[:shared], atol=1e-6)
    assert np.abs(features[shared] - others[shared]).max() > 1e-4


def test_the_vector_is_that_of_the_first_end(tower):
    ids = byte_tokens(["ab"], LENGTH).ids
    features, pooled = tower[0](ids)
    np.testing.assert_allclose(pooled[0], features[0, 3], atol=1e-6)
    ids[0, 4:] = BYTE_END
    features, pooled = tower[0](ids)
    np.testing.assert_allclose(pooled[0], features[0, 3], atol=1e-6)


@pytest.mark.slow
def test_every_parameter_learns_and_no_text_teaches_none():
    tower = TOWER.clone(projection=8)
    ids = jnp.asarray(byte_tokens(WORDS, LENGTH).ids).at[1].set(-1)
    variables = jax.jit(tower.init)(jax.random.key(0), ids)

    def loss(params, ids):
        features, pooled = tower.apply(params, ids)
        return jnp.sum(jnp.sin(features)) + jnp.sum(jnp.sin(pooled))

    gradient = jax.jit(jax.grad(loss))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables, ids)):
        name = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)), name
        zero = 1e-6 if "k_proj']['bias" in name else 0.0  # softmax does not see it
        assert (np.abs(leaf).max() > 1e-5) == (zero == 0.0), name
    for leaf in jax.tree.leaves(gradient(variables, jnp.full_like(ids, -1))):
        np.testing.assert_array_equal(leaf, 0.0)


def test_bfloat16_is_near_and_gives_float32(tower):
    ids = byte_tokens(WORDS, LENGTH).ids
    exact = tower[0](ids)
    found = jax.jit(TOWER.clone(dtype=jnp.bfloat16).apply)(tower[1], ids)
    for half, whole in zip(found, exact, strict=True):
        assert half.dtype == jnp.float32
        assert 0 < np.abs(half - whole).max() < 0.1


def test_initial_weights_are_of_the_sizes_of_clip():
    """`initialize_parameters` of openai/CLIP, with width 64, 3 layers and a projection."""
    tower = TextTower(positions=64, width=64, depth=3, heads=4, projection=64, **SMALL)
    tokens = jnp.zeros((1, 5), jnp.int32)
    found = jax.jit(tower.init)(jax.random.key(0), tokens)["params"]
    layer = found["text_model.encoder.layers.1"]
    for weights, std in (
        (found["text_model.embeddings.token_embedding"]["embedding"], 0.02),
        (found["text_model.embeddings.position_embedding"]["embedding"], 0.01),
        (layer["self_attn.q_proj"]["kernel"], 64**-0.5),
        (layer["self_attn.out_proj"]["kernel"], 64**-0.5 * 6**-0.5),
        (layer["mlp.fc1"]["kernel"], 128**-0.5),
        (layer["mlp.fc2"]["kernel"], 64**-0.5 * 6**-0.5),
        (found["text_projection"]["kernel"], 64**-0.5),
    ):
        assert np.std(weights) == pytest.approx(std, rel=0.05)


def test_attention_is_a_mean_over_what_is_seen():
    """With queries of zero, over all values that the mask lets through."""
    v = jnp.arange(2 * 4 * 6, dtype=jnp.float32).reshape(2, 4, 6) ** 2
    tokens = jnp.array([[1, 2, 3, -1], [5, -1, -1, -1]])
    found = masked_attention(0 * v, v, v, 2, token_mask(tokens, causal=False))
    np.testing.assert_allclose(found[0, 0], v[0, :3].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[1, 0], v[1, 0], rtol=1e-6)
    found = masked_attention(0 * v, v, v, 2, token_mask(tokens, causal=True))
    np.testing.assert_allclose(found[0, 1], v[0, :2].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[0, 3], v[0, :3].mean(0), rtol=1e-6)
