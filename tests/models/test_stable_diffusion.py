"""The networks of Stable Diffusion agree with diffusers and transformers in float64.

Outputs of those are in `reference/stable_diffusion.npz`, made by `make_stable_diffusion.py` there
for the same weights and inputs.
"""

import functools
import pathlib

import jax
import numpy as np
import pytest

from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.layers import sinusoidal_embedding
from diffusion_jax.models.published import autoencoder, unet
from diffusion_jax.models.unet import UNet
from diffusion_jax.models.weights import like_torch
from tests.reference.small_stable_diffusion import INDICES, drawn, inputs

STORED = np.load(pathlib.Path(__file__).parents[1] / "reference" / "stable_diffusion.npz")
GIVEN = inputs()
PRECISE = {"dtype": np.float64}
UNET = UNet(
    channels=32,
    channel_mults=(1, 2, 2, 2),
    attention_levels=(0, 1, 2),
    num_heads=8,
    context_dim=48,
    symmetric_padding=True,
    norm_groups=32,
    dropout=0.0,
    out_channels=4,
    **PRECISE,
)
NARROW = {"channels": 32, "norm_groups": 32, **PRECISE}
AUTOENCODERS = {
    "autoencoder": Autoencoder(channel_mults=(1, 2, 2, 2), **NARROW),
    "least_autoencoder": Autoencoder(channel_mults=(1, 2), num_blocks=1, **NARROW),
}
TEXT = TextTower(vocabulary=100, width=48, depth=2, heads=4, end=99, **PRECISE)


def weights(net, formats, *args):
    """Variables in float64, of tensors drawn by the names that they have in diffusers."""
    template = jax.eval_shape(net.init, jax.random.key(0), *args)
    layout = formats(template)

    def read(keys, leaf):
        stored = layout(tuple(key.key for key in keys[1:]), leaf)
        return stored.read(drawn(stored.name, stored.shape), leaf.shape)

    return jax.tree_util.tree_map_with_path(read, template)


def assert_agrees(found, name):
    expected = STORED[name]
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_times_are_embedded_as_in_diffusers(x64):
    found = sinusoidal_embedding(np.array(INDICES), 32, dtype=np.float64)
    np.testing.assert_allclose(found, STORED["embedding"], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_unet(x64):
    args = GIVEN["x_t"], GIVEN["index"], {"text": GIVEN["text"]}
    found = jax.jit(UNET.apply)(weights(UNET, unet.diffusers, *args), *args)
    assert_agrees(found, "noise")


SIZES = [pytest.param("autoencoder", marks=pytest.mark.slow), "least_autoencoder"]


@functools.cache
def autoencoder_weights(name):
    return weights(AUTOENCODERS[name], autoencoder.diffusers, GIVEN["picture"])


@pytest.mark.parametrize("name", SIZES)
def test_encoder(x64, name):
    encode = jax.jit(functools.partial(AUTOENCODERS[name].apply, method="encode"))
    mean, logvar = encode(autoencoder_weights(name), GIVEN["picture"])
    assert_agrees(mean, f"{name}_mean")
    assert_agrees(logvar, f"{name}_logvar")


@pytest.mark.parametrize("name", SIZES)
def test_decoder(x64, name):
    """One of the pictures has one colour: what its borders become is compared too."""
    decode = jax.jit(functools.partial(AUTOENCODERS[name].apply, method="decode"))
    found = decode(autoencoder_weights(name), STORED[f"{name}_mean"])
    assert_agrees(found, f"{name}_picture")


def test_text_encoder_with_clip_skip(x64):
    params = weights(TEXT, lambda template: like_torch, GIVEN["tokens"])

    def every(params, tokens):
        return {skip: TEXT.clone(skip=skip).apply(params, tokens) for skip in (0, 1, 2)}

    last = STORED["text"]
    for skip, (found, pooled) in jax.jit(every)(params, GIVEN["tokens"]).items():
        assert_agrees(found, f"text_skip_{skip}" if skip else "text")
        np.testing.assert_allclose(pooled, [last[0, 5], last[1, -1]], atol=1e-9)


@pytest.mark.parametrize("skip", [-1, 3])
def test_layers_that_there_are_not_cannot_be_skipped(skip):
    with pytest.raises(ValueError, match=rf"skip={skip} must be 0 to the number of layers, 2"):
        TEXT.clone(skip=skip).init(jax.random.key(0), GIVEN["tokens"])
