"""The autoencoder of latent diffusion (Rombach et al. 2022, section 3.1 and appendix G).

The defaults are Stable Diffusion's, of 83,653,863 parameters: 8 x 8 pixels are one latent of four
channels. Latents are as the encoder gives them; their scale is not part of the network.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.attention import attention
from diffusion_jax.models.layers import (
    Conv,
    Dtype,
    GroupNorm,
    at_least_float32,
    dense,
    upsample,
    zeros,
)
from diffusion_jax.models.layout import keep_rows
from diffusion_jax.models.remat import remat
from diffusion_jax.models.unet import ResBlock
from diffusion_jax.types import Array

LOGVAR_LIMITS = (-30.0, 20.0)
"""The log-variance of latents is clipped to these, so that its exponential is a number."""


class PixelAttention(nn.Module):
    """Residual self-attention over all pixels with one head, each of q, k and v a layer."""

    dtype: Dtype
    norm: Callable[..., GroupNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., C]."""
        b, *_, c = x.shape
        h = self.norm(self.dtype, name="norm")(x).reshape(b, -1, c)
        q, k, v = (dense(c, dtype=self.dtype, name=name)(h) for name in "qkv")
        h = attention(q, k, v, num_heads=1)
        h = dense(c, kernel_init=zeros, dtype=self.dtype, name="out")(h)
        return keep_rows(x + h.reshape(x.shape))


class _Part(nn.Module, kw_only=True):
    """Settings that encoder and decoder share, and the layers of both."""

    channels: int = 128  # channels of the first level
    # multiples of `channels`, one per level; each level but the first halves the size
    channel_mults: Sequence[int] = (1, 2, 4, 4)
    num_blocks: int = 2  # residual blocks per level of the encoder; the decoder has one more
    latent_channels: int = 4
    out_channels: int = 3  # channels of the data
    attention: bool = True  # whether the smallest level has self-attention, with one head
    norm_groups: int = 0  # groups of all group norms; 0: 32, or fewer in narrow networks
    remat: str = "none"  # rematerialisation of blocks, a name of `remat.REMAT`
    # compute dtype; parameters are initialised in float32, and others keep their dtype
    dtype: Dtype = jnp.float32

    def _conv(self, features: int, name: str, kernel_size: int = 3, stride: int = 1) -> Conv:
        return Conv(features, kernel_size, stride, dtype=self.dtype, name=name)

    @property
    def _norm(self) -> Callable[..., GroupNorm]:
        return partial(GroupNorm, epsilon=1e-6, groups=self.norm_groups)

    def _res_block(self, h: Array, level: int, name: str) -> Array:
        features = self.channels * self.channel_mults[level]
        block = remat(ResBlock, self.remat)
        return block(features, dtype=self.dtype, norm=self._norm, name=f"{name}_res")(h)

    def _middle(self, h: Array) -> Array:
        h = self._res_block(h, -1, "middle_0")
        if self.attention:
            block = remat(PixelAttention, self.remat)
            h = block(self.dtype, self._norm, name="middle_attention")(h)
        return self._res_block(h, -1, "middle_1")

    def _out(self, h: Array, features: int) -> Array:
        h = nn.silu(self._norm(self.dtype, name="norm_out")(h))
        return self._conv(features, "conv_out")(h)


class _Encoder(_Part):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H / f, W / f, 2 latent_channels]."""
        h = self._conv(self.channels, "conv_in")(x)
        last = len(self.channel_mults) - 1
        for level in range(last + 1):
            for block in range(self.num_blocks):
                h = self._res_block(h, level, f"down_{level}_{block}")
            if level < last:  # pads to the right and below only
                h = self._conv(h.shape[-1], f"down_{level}_resample", stride=2)(h)
        h = self._out(self._middle(h), 2 * self.latent_channels)
        return self._conv(h.shape[-1], "quant_conv", kernel_size=1)(h)


class _Decoder(_Part):
    @nn.compact
    def __call__(self, z: Array) -> Array:
        """[B, H / f, W / f, latent_channels] -> [B, H, W, C]."""
        h = self._conv(self.latent_channels, "post_quant_conv", kernel_size=1)(z)
        h = self._conv(self.channels * self.channel_mults[-1], "conv_in")(h)
        h = self._middle(h)
        for level in reversed(range(len(self.channel_mults))):
            for block in range(self.num_blocks + 1):
                h = self._res_block(h, level, f"up_{level}_{block}")
            if level > 0:
                h = self._conv(h.shape[-1], f"up_{level}_resample")(upsample(h))
        return self._out(h, self.out_channels)


class Autoencoder(_Part):
    """Samples [B, H, W, C] to a normal law of latents [B, H / f, W / f, Z], and latents to samples.

    `f` is the `factor` and Z `latent_channels`; samples have any number of axes. Results are
    float32, or float64 with that `dtype`.
    """

    def setup(self) -> None:
        names = {field.name for field in dataclasses.fields(_Part)} - {"parent", "name"}
        settings = {name: getattr(self, name) for name in names}
        self.encoder, self.decoder = _Encoder(**settings), _Decoder(**settings)

    @property
    def factor(self) -> int:
        """Pixels per latent along each axis."""
        return int(2 ** (len(self.channel_mults) - 1))

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Mean and log-variance of the latents of x [B, H, W, C]: twice [B, H / f, W / f, Z].

        Raises:
            ValueError: a side is not a multiple of `factor`.
        """
        sizes = x.shape[1:-1]
        if any(size % self.factor for size in sizes):
            raise ValueError(
                f"all sides of size {'x'.join(map(str, sizes))} must be multiples of "
                f"{self.factor}: the {len(self.channel_mults)} levels of the autoencoder's "
                f"channel_mults={tuple(self.channel_mults)} halve them "
                f"{len(self.channel_mults) - 1} time(s)"
            )
        mean, logvar = jnp.split(at_least_float32(self.encoder(x)), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_LIMITS)

    def decode(self, z: Array) -> Array:
        """The samples [B, H, W, C] of latents [B, H / f, W / f, Z]."""
        return at_least_float32(self.decoder(z))

    def __call__(self, x: Array) -> Array:
        """Decodes the mean latents of x [B, H, W, C]."""
        return self.decode(self.encode(x)[0])
