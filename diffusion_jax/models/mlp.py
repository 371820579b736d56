"""A residual MLP for points in few dimensions, conditioned as in DiT."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.dit import gelu_layer, modulate
from diffusion_jax.models.layers import (
    ConditionEmbedding,
    Dtype,
    at_least_float32,
    dense,
    sinusoidal_embedding,
    zeros,
)
from diffusion_jax.types import Array, Cond

FREQUENCIES = 6  # Fourier frequencies per coordinate, geometrically spaced
HIGHEST = 16.0  # highest frequency, in radians per unit; the lowest is about 1


class MLP(nn.Module):
    """Residual blocks over vectors, scaled, shifted and gated by the conditioning (adaLN-Zero).

    Coordinates are extended by sines and cosines of fixed frequencies, without which a small
    network learns fine detail slowly (Tancik et al. 2020).
    """

    features: int = 64  # width of the blocks
    depth: int = 2  # number of blocks
    num_classes: int = 0  # classes of `cond['label']`; 0 for none
    vectors: Sequence[str] = ()  # names of the vectors in `cond` to use
    out_channels: int = 2  # width of the prediction; twice the input's with a learned variance
    dtype: Dtype = jnp.float32  # compute dtype, as in `layers.Network`

    @nn.compact
    def __call__(self, x_t: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See `layers.Network`: points [B, D] and times [B] -> [B, out_channels]; no dropout."""
        del train
        if x_t.ndim != 2:
            raise ValueError(f"model.name='mlp' needs vectors, not samples of {x_t.shape[1:]}")
        layer = partial(dense, dtype=self.dtype)
        emb = ConditionEmbedding(
            self.features, 128, self.num_classes, self.vectors, self.dtype, name="embedding"
        )(t, cond)
        emb = nn.silu(emb)

        waves = sinusoidal_embedding(HIGHEST * x_t.reshape(-1), 2 * FREQUENCIES, 2 * HIGHEST)
        x = jnp.concatenate([x_t, waves.reshape(len(x_t), -1)], axis=-1).astype(self.dtype)
        x = layer(self.features, name="points")(x)
        for i in range(self.depth):
            modulation = layer(3 * self.features, kernel_init=zeros, name=f"modulation_{i}")(emb)
            shift, scale, gate = jnp.split(modulation, 3, axis=-1)
            h = modulate(x, shift, scale)
            h = gelu_layer(2 * self.features, self.dtype, name=f"mlp_{i}_0")(h)
            x = x + gate * layer(self.features, name=f"mlp_{i}_1")(h)

        modulation = layer(2 * self.features, kernel_init=zeros, name="modulation_out")(emb)
        shift, scale = jnp.split(modulation, 2, axis=-1)
        x = layer(self.out_channels, kernel_init=zeros, name="out")(modulate(x, shift, scale))
        return at_least_float32(x)
