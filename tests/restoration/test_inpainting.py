"""What Stable Diffusion's inpainting network is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.conditioning import drop, unconditional
from diffusion_jax.models.unet import UNet
from diffusion_jax.restoration.image_conditions import inpainting, of_latents
from tests.oracles import keys_of


def test_the_mask_comes_first_and_the_picture_is_grey_where_it_is_hidden():
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 6, 3)).astype(np.float32)
    hidden = np.zeros((2, 4, 6, 1), np.float32)
    hidden[0, 1:3, 2:], hidden[1, :1] = 1, 1
    found = inpainting(Identity((4, 6, 3)), {}, x, hidden, keys_of(2))["inpainting"]
    np.testing.assert_array_equal(found[..., :1], hidden)
    np.testing.assert_array_equal(found[..., 1:], np.where(hidden == 1, 0, x))


def test_a_latent_has_the_mask_of_its_first_pixel():
    mask = np.random.default_rng(0).integers(0, 2, (1, 16, 24, 1))
    np.testing.assert_array_equal(of_latents(mask, (1, 2, 3, 4)), mask[:, ::8, ::8])
    np.testing.assert_array_equal(of_latents(mask, (1, 16, 24, 3)), mask)


def test_it_is_neither_switched_off_nor_dropped():
    given = jnp.ones((2, 4, 4, 5))
    cond = {"inpainting": given, "text": jnp.ones((2, 3, 8))}
    for found in (unconditional(cond), drop(cond, keys_of(2), 1.0)):
        np.testing.assert_array_equal(found["inpainting"], given)
        assert not found["text"].any()


def test_a_network_takes_it_behind_the_latents_and_needs_it():
    network, x_t = UNet(inpainting_channels=5), jnp.zeros((2, 4, 4, 4))
    found = network.beside(x_t, {"inpainting": jnp.ones((2, 4, 4, 5))})
    assert found.shape == (2, 4, 4, 9)
    np.testing.assert_array_equal(found[0, 0, 0], [0] * 4 + [1] * 5)
    with pytest.raises(ValueError, match=r"needs cond\['inpainting'\]"):
        network.beside(x_t, {"image": x_t})
    shapes = jax.eval_shape(UNet().beside, x_t, {"inpainting": x_t})
    assert shapes.shape == x_t.shape  # other networks do not see it
