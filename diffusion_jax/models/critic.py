"""The critic of adversarial losses: a residual network without normalisation, as that of R3GAN."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.layers import Conv, Dtype, at_least_float32, dense, downsample, zeros
from diffusion_jax.models.layout import keep_rows
from diffusion_jax.types import Array

SLOPE = 0.2
"""Of leaky ReLUs below 0."""


class CriticBlock(nn.Module):
    """Residual block of two convolutions, the identity at first (Fixup, Zhang et al. 2019)."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., features]."""
        h = Conv(self.features, dtype=self.dtype, name="conv_0")(nn.leaky_relu(x, SLOPE))
        h = nn.leaky_relu(h, SLOPE)
        h = Conv(self.features, kernel_init=zeros, dtype=self.dtype, name="conv_1")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, kernel_size=1, dtype=self.dtype, name="skip")(x)
        return keep_rows(x + h)


class Critic(nn.Module):
    """One logit per sample, large for data (section 3, Huang et al. 2024).

    Without normalisation, which would make a sample's logit and the penalties on its gradient
    depend on statistics of activations. Samples have any number of axes; all operations have
    second derivatives, which those penalties need.
    """

    channels: int = 32  # channels of the first level
    # multiples of `channels`, one per level; each level but the first halves the size
    channel_mults: Sequence[int] = (1, 2, 4)
    num_blocks: int = 1  # residual blocks per level
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B].

        Raises:
            ValueError: a side is not a multiple of two to the number of halvings.
        """
        factor = 2 ** (len(self.channel_mults) - 1)
        if any(size % factor for size in x.shape[1:-1]):
            raise ValueError(
                f"all sides of size {'x'.join(map(str, x.shape[1:-1]))} must be multiples of "
                f"{factor}, for channel_mults={tuple(self.channel_mults)} of the critic"
            )
        h = Conv(self.channels, dtype=self.dtype, name="conv_in")(x)
        for level, mult in enumerate(self.channel_mults):
            h = downsample(h) if level else h
            for block in range(self.num_blocks):
                features = self.channels * mult
                h = CriticBlock(features, self.dtype, name=f"down_{level}_{block}")(h)
        h = nn.leaky_relu(h, SLOPE).mean(tuple(range(1, h.ndim - 1)))
        return at_least_float32(dense(1, dtype=self.dtype, name="out")(h))[:, 0]
