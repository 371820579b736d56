"""Normalisation of values far from zero, and in double precision."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import bert, clip, transformer, vision_transformer
from diffusion_jax.models.dit import modulate
from diffusion_jax.models.layers import GroupNorm, LayerNorm, num_groups

CHANNELS = 256


def group_norm(x, **settings):
    net = GroupNorm(x.dtype, **settings)
    return net.apply({"params": {"scale": jnp.ones(CHANNELS), "bias": jnp.zeros(CHANNELS)}}, x)


def layer_norm(x):
    net = LayerNorm(epsilon=1e-6, dtype=x.dtype)
    return net.apply({"params": {"scale": jnp.ones(CHANNELS), "bias": jnp.zeros(CHANNELS)}}, x)


def modulated(x):
    return modulate(x, jnp.zeros((1, 1, CHANNELS), x.dtype), jnp.zeros((1, 1, CHANNELS), x.dtype))


NORMS = {  # name: norm, number of groups, epsilon
    "group": (group_norm, num_groups(CHANNELS), 1e-5),
    "groups_of_autoencoder": (partial(group_norm, epsilon=1e-6, groups=64), 64, 1e-6),
    "layer": (layer_norm, None, 1e-6),
    "modulate": (modulated, None, 1e-6),
}


def rows(x, groups):
    """What is normalised together as the last axis: [B, L, C] -> [B, groups, ...] or itself."""
    return (
        x
        if groups is None
        else x.reshape(*x.shape[:2], groups, -1).swapaxes(1, 2).reshape(len(x), groups, -1)
    )


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_any_mean_normalises_to_unit_variance(name, mean):
    norm, groups, _ = NORMS[name]
    x = np.random.default_rng(0).standard_normal((2, 64, CHANNELS))
    x = (mean + (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)).astype(np.float32)
    y = norm(jnp.asarray(x))
    assert y.dtype == jnp.float32
    found = rows(np.asarray(y, np.float64), groups)
    np.testing.assert_allclose(found.var(-1), 1, atol=1e-3)
    np.testing.assert_allclose(found.mean(-1), 0, atol=1e-3)


@pytest.mark.parametrize("name", NORMS)
def test_double_precision_stays(name):
    norm, groups, epsilon = NORMS[name]
    x = 3 + np.random.default_rng(0).standard_normal((2, 16, CHANNELS))
    with jax.enable_x64(True):
        y = norm(jnp.asarray(x))
        assert y.dtype == jnp.float64
    expected = rows(x, groups)
    expected = expected - expected.mean(-1, keepdims=True)
    expected /= np.sqrt(np.square(expected).mean(-1, keepdims=True) + epsilon)
    np.testing.assert_allclose(rows(np.asarray(y), groups), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("block", "args"),
    [
        (
            transformer.SpatialTransformer(2),
            (jnp.ones((1, 2, 2, 4)), jnp.ones((1, 2, 3)), jnp.ones(1, int)),
        ),
        (bert.BertLayer(2), (jnp.ones((1, 2, 4)), jnp.ones((1, 2, 2), bool))),
        (
            clip.ClipLayer(2, 1, "gelu", jnp.float32),
            (jnp.ones((1, 2, 4)), jnp.ones((1, 2, 2), bool)),
        ),
        (vision_transformer.TransformerBlock(2), (jnp.ones((1, 2, 4)),)),
    ],
    ids=["transformer", "bert", "clip", "vision_transformer"],
)
def test_every_layer_norm_holds_far_from_zero(block, args, monkeypatch):
    """None asks the library for the variance as a difference of two squares."""
    fast = []
    original = nn.LayerNorm.__call__

    def called(self, *args, **kwargs):
        fast.append(self.use_fast_variance)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(nn.LayerNorm, "__call__", called)
    jax.eval_shape(block.init, jax.random.key(0), *args)
    assert fast
    assert not any(fast)
