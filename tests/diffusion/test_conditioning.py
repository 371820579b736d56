"""Conditioning of networks on labels, texts, vectors and images, any of which may be missing."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.conditioning import PARTS, drop, unconditional
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.models.attention import attention
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.unet import UNet

B, SIZE, RNG = 3, 8, np.random.default_rng(0)
X, T = RNG.normal(size=(B, SIZE, SIZE, 1)).astype(np.float32), np.array([100, 500, 900], np.float32)
COND = {
    "label": np.array([0, 2, 1], np.int32),
    "text": RNG.normal(size=(B, 4, 6)).astype(np.float32),
    "pooled": RNG.normal(size=(B, 5)).astype(np.float32),
    "vector": RNG.normal(size=(B, 2)).astype(np.float32),
    "image": RNG.normal(size=(B, SIZE, SIZE, 2)).astype(np.float32),
}
COND["text"][1, 2:] = COND["text"][2, 1:] = 0  # of 4, 2 and 1 tokens
READS = {"context_dim": 6, "num_classes": 3, "vectors": ("pooled", "vector"), "image_channels": 2}
NETS = {
    "unet": UNet(8, (1, 2), 1, (1,), dropout=0.0, out_channels=1, **READS),
    "dit": DiT(4, 16, 2, 2, out_channels=1, **READS),
}


@pytest.fixture(scope="module", params=NETS)
def network(request):
    """A network with weights that are nowhere zero: `cond -> y`."""
    net = NETS[request.param]
    shapes = jax.eval_shape(net.init, jax.random.key(0), X, T, COND)["params"]

    def drawn(path, leaf):
        name = "/".join(part.key for part in path)
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(leaf.shape)
        return (0.2 * values).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, shapes)
    return jax.jit(lambda cond: net.apply({"params": params}, X, T, cond))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.slow
def test_what_is_off_is_as_what_is_missing_and_each_part_matters(network, part):
    there = [name for name in PARTS[part] if name in COND]
    rest = {name: value for name, value in COND.items() if name not in there}
    off = unconditional({name: COND[name] for name in there})
    np.testing.assert_allclose(network(rest | off), network(rest), rtol=1e-5, atol=1e-5)
    assert np.all(np.abs(network(COND) - network(rest)).max((1, 2, 3)) > 1e-3)


@pytest.mark.slow
def test_any_subset_runs_and_none_is_unconditional(network):
    none = network(unconditional(COND))
    np.testing.assert_allclose(network({}), none, rtol=1e-5, atol=1e-5)
    for names in (("label", "text"), ("pooled", "image"), ("vector",)):
        y = network({name: COND[name] for name in names})
        assert np.all(np.isfinite(y))
        assert not np.allclose(y, none)


@pytest.mark.slow
def test_rows_of_zeros_are_no_tokens(network):
    longer = np.pad(COND["text"], ((0, 0), (0, 3), (0, 0)))
    y = network(COND)
    np.testing.assert_allclose(network(COND | {"text": longer}), y, rtol=1e-4, atol=1e-4)
    other = COND["text"].copy()
    other[0, 3] *= -1
    changed = network(COND | {"text": other})
    assert np.abs(changed - y)[0].max() > 1e-4
    np.testing.assert_allclose(changed[1:], y[1:], rtol=1e-5, atol=1e-5)


def test_attention_to_so_many_positions_is_that_of_the_rest_cut_off():
    q, k, v = RNG.normal(size=(3, B, 5, 8)).astype(np.float32)
    found = attention(q, k, v, 2, jnp.array([5, 2, 1]))
    for row, length in enumerate((5, 2, 1)):
        alone = attention(*(a[row : row + 1] for a in (q, k[:, :length], v[:, :length])), 2)
        np.testing.assert_allclose(found[row], alone[0], rtol=1e-5, atol=1e-6)
    none = attention(q, k * 0, v * 0, 2, jnp.zeros(B, jnp.int32))
    np.testing.assert_array_equal(none, np.zeros_like(q))


def test_parts_are_dropped_independently_and_each_as_a_whole():
    num = 4000
    cond = {
        "label": jnp.zeros(num, jnp.int32),
        "text": jnp.ones((num, 2, 3)),
        "pooled": jnp.ones((num, 3)),
        "image": jnp.ones((num, 2, 2, 1)),
    }
    keys = sample_keys(jax.random.key(0), jnp.arange(num))
    found = drop(cond, keys, 0.2, {"label": 0.3, "text": 0.5})
    label, text, image = (
        np.asarray(found["label"]) == -1,
        *(np.all(np.asarray(found[n]) == 0, axis=(1, 2)) for n in ("text",)),
        np.all(np.asarray(found["image"]) == 0, axis=(1, 2, 3)),
    )
    np.testing.assert_array_equal(np.all(np.asarray(found["pooled"]) == 0, axis=1), text)
    for off, rate in ((image, 0.2), (label, 0.2 + 0.8 * 0.3), (text, 0.2 + 0.8 * 0.5)):
        assert abs(off.mean() - rate) < 0.03  # four standard errors
    assert np.all(label[image])  # all together
    assert np.all(text[image])
    both = (label & text)[~image].mean()
    assert abs(both - 0.3 * 0.5) < 0.03


def test_what_stands_for_nothing_takes_the_place_of_zeros():
    keys = sample_keys(jax.random.key(0), jnp.arange(B))
    empty = RNG.normal(size=(1, 4, 6)).astype(np.float32)
    found = drop(COND, keys, 1.0, none={"text": empty})
    np.testing.assert_array_equal(found["text"], np.repeat(empty, B, axis=0))
    assert np.all(found["label"] == -1)
    assert not np.any(found["pooled"])
    kept = drop(COND, keys, 0.0, {"text": 0.0}, {"text": empty})
    np.testing.assert_array_equal(kept["text"], COND["text"])
