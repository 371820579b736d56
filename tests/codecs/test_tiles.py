"""Latents that are decoded in tiles."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.latents import CODEC, Latents
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.layers import upsample

SHAPE = 40, 23, 2


class Local(nn.Module):
    """A decoder whose pixels depend on latents up to `reach` away."""

    reach: int
    factor: int = 2

    @nn.compact
    def decode(self, z):
        h = nn.tanh(nn.Conv(4, (2 * self.reach + 1,) * 2, padding="SAME", param_dtype=z.dtype)(z))
        return nn.Dense(3, param_dtype=z.dtype)(upsample(h))


def drawn(rng, shape):
    """A kernel that keeps variances, or a scale or shift near 1."""
    values = rng.standard_normal(shape)
    return values / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 1 + 0.1 * values


def both(network, tile, shape=SHAPE):
    """Samples that are decoded in tiles, and at once."""
    x_0 = jax.random.normal(jax.random.key(0), (2, *shape))
    shapes = jax.eval_shape(lambda z: network.init(jax.random.key(1), z, method="decode"), x_0)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: drawn(rng, a.shape).astype(a.dtype), shapes["params"])
    return [
        jax.jit(Latents(network, shape, 0.5, tile=size).decode)({CODEC: params}, x_0)
        for size in (tile, 0)
    ]


@pytest.mark.parametrize("size", [16, 30, 64])
def test_tiles_of_a_local_decoder_are_as_the_whole(x64, size):
    """A tile overlaps the next by a quarter, of which a quarter is how far a pixel may see."""
    found, expected = both(Local(reach=1), size)
    assert found.shape == (2, 80, 46, 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    if size == 16:  # two away is too far
        found, expected = both(Local(reach=4), size)
        assert np.abs(found - expected).max() > 1e-3


@pytest.mark.slow
def test_tiles_of_an_autoencoder_have_no_seams():
    """With norms and attention over a tile they differ, in units of the samples' deviation.

    By 2% (root mean square), and from one row to the next by 3% at most, which is in the overlap.
    """
    network = Autoencoder(channels=8, channel_mults=(1, 1), num_blocks=1, norm_groups=4)
    found, expected = both(network, 32, (56, 32, 4))
    assert found.dtype == jnp.float32
    error = np.asarray(found - expected) / np.std(expected)
    assert 0 < np.sqrt(np.mean(error**2)) < 0.1
    steps = np.abs(np.diff(error, axis=1)).mean((0, 2, 3))
    assert steps.max() < 0.05
