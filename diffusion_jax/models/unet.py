"""The U-Net of DDPM (Ho et al. 2020, appendix B) and of ADM (Dhariwal & Nichol 2021, section 3).

Both are one class: `scale_shift` and `resblock_updown` enable ADM's additions. The defaults are
DDPM's CIFAR-10 network of 35.7 M parameters. ADM's ImageNet-64 network of 296 M is

    UNet(channels=192, channel_mults=(1, 2, 3, 4), num_blocks=3, attention_levels=(1, 2, 3),
         head_dim=64, scale_shift=True, resblock_updown=True, num_classes=1000, out_channels=6)

With `context_dim` it attends to a text; `transformer.py` gives Stable Diffusion's sizes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.attention import attention
from diffusion_jax.models.layers import (
    Conv,
    Dtype,
    GroupNorm,
    Network,
    at_least_float32,
    dense,
    downsample,
    everywhere,
    patchify,
    unpatchify,
    upsample,
    zeros,
)
from diffusion_jax.models.layout import keep_rows
from diffusion_jax.models.remat import remat
from diffusion_jax.models.transformer import SpatialTransformer, text_of
from diffusion_jax.types import Array, Cond


class ResBlock(nn.Module):
    """Residual block: two convolutions, with the conditioning added in between.

    With `scale_shift` the conditioning scales and shifts the second norm (Eq. 1 of ADM's section
    3.1) instead of being added before it. `resample` is `upsample` or `downsample`, applied inside
    the block as in BigGAN.
    """

    features: int
    scale_shift: bool = False
    resample: Callable[[Array], Array] | None = None
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    norm: Callable[..., GroupNorm] = GroupNorm

    @nn.compact
    def __call__(self, x: Array, emb: Array | None = None, train: bool = False) -> Array:
        """Samples x [B, ..., C] and conditioning emb [B, E] or none -> [B, ..., features]."""
        h = nn.silu(self.norm(self.dtype, name="norm_0")(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = Conv(self.features, dtype=self.dtype, name="conv_0")(h)
        norm = self.norm(self.dtype, name="norm_1")
        if emb is not None:
            width = 2 * self.features if self.scale_shift else self.features
            emb = everywhere(dense(width, dtype=self.dtype, name="emb")(emb), h)
        if emb is None:
            h = norm(h)
        elif self.scale_shift:
            scale, shift = jnp.split(emb, 2, axis=-1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + emb)
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = Conv(self.features, kernel_init=zeros, dtype=self.dtype, name="conv_1")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, kernel_size=1, dtype=self.dtype, name="skip")(x)
        return keep_rows(x + h)


class AttentionBlock(nn.Module):
    """Residual self-attention over all pixels, with `C / head_dim` or `num_heads` heads."""

    num_heads: int
    head_dim: int
    dtype: Dtype = jnp.float32
    norm: Callable[..., GroupNorm] = GroupNorm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., C]."""
        b, *_, c = x.shape
        if c % (self.head_dim or self.num_heads):
            raise ValueError(
                f"attention over {c} channels cannot be split into heads evenly: change "
                f"model.unet.head_dim={self.head_dim} or model.unet.num_heads={self.num_heads}"
            )
        heads = c // self.head_dim if self.head_dim else self.num_heads
        h = self.norm(self.dtype, name="norm")(x).reshape(b, -1, c)
        q, k, v = jnp.split(dense(3 * c, dtype=self.dtype, name="qkv")(h), 3, axis=-1)
        h = attention(q, k, v, heads)
        h = dense(c, kernel_init=zeros, dtype=self.dtype, name="out")(h)
        return keep_rows(x + h.reshape(x.shape))


class UNet(Network):
    """U-Net for samples with any number of axes, with `len(channel_mults)` resolution levels.

    With `context_dim` its attention blocks are spatial transformers with `num_heads` heads.
    """

    channels: int = 128  # channels of the first level
    # multiples of `channels`, one per level; each level halves the size
    channel_mults: Sequence[int] = (1, 2, 2, 2)
    num_blocks: int = 2  # residual blocks per level on the way down, one more on the way up
    # levels (0: full size) with attention after each block; the middle of the network always has it
    attention_levels: Sequence[int] = (1,)
    num_heads: int = 1  # attention heads, if `head_dim` is 0
    head_dim: int = 0  # channels per head; 0: `num_heads` heads at every width
    scale_shift: bool = False  # adaptive group norm (ADM) instead of addition (DDPM)
    # resample in residual blocks (ADM) instead of by convolutions (DDPM)
    resblock_updown: bool = False
    dropout: float = 0.1  # rate in residual blocks
    # side of the image patches that form the pixels of the first level (Luhman & Luhman 2022), so
    # that the network works at `1 / patch_size` of the size; 1 is off
    patch_size: int = 1
    # downsampling convolutions pad by one pixel on every side (Stable Diffusion) instead of only to
    # the right and below (DDPM's 'SAME')
    symmetric_padding: bool = False
    norm_groups: int = 0  # groups of all group norms; 0: 32, or fewer in narrow networks

    @nn.compact
    def __call__(self, x_t: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See `Network`: [B, ..., C] and [B] -> [B, ..., out_channels]."""
        self._check_levels(x_t.shape[1:-1])
        emb = keep_rows(self.embedding(t, cond, 4 * self.channels, self.channels))
        h = patchify(self.beside(x_t, cond), self.patch_size)
        h = Conv(self.channels, dtype=self.dtype, name="conv_in")(h)
        skips = [h]
        last = len(self.channel_mults) - 1
        for level in range(last + 1):
            for block in range(self.num_blocks):
                h = self._block(h, emb, cond, level, train, f"down_{level}_{block}")
                skips.append(h)
            if level < last:
                h = self._resample(h, emb, downsample, train, f"down_{level}")
                skips.append(h)

        mult = self.channel_mults[last]
        h = self._res_block(mult, name="middle_0")(h, emb, train)
        h = self._attention(h, cond, "middle_attention")
        h = self._res_block(mult, name="middle_1")(h, emb, train)

        for level in reversed(range(last + 1)):
            for block in range(self.num_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(h, emb, cond, level, train, f"up_{level}_{block}")
            if level > 0:
                h = self._resample(h, emb, upsample, train, f"up_{level}")

        h = nn.silu(self._norm(self.dtype, name="norm_out")(h))
        patch = self.patch_size ** (x_t.ndim - 2) * self.out_channels
        h = Conv(patch, kernel_init=zeros, dtype=self.dtype, name="conv_out")(h)
        return at_least_float32(unpatchify(h, self.patch_size))

    @property
    def _norm(self) -> Callable[..., GroupNorm]:
        return partial(GroupNorm, groups=self.norm_groups)

    def _res_block(
        self, mult: int, name: str, resample: Callable[[Array], Array] | None = None
    ) -> Any:
        block = partial(remat(ResBlock, self.remat, static_argnums=(3,)), name=f"{name}_res")
        features = mult * self.channels
        return block(features, self.scale_shift, resample, self.dropout, self.dtype, self._norm)

    def _attention(self, h: Array, cond: Cond, name: str) -> Array:
        if self.context_dim:
            block = remat(SpatialTransformer, self.remat)
            block = block(self.num_heads, self.dtype, self._norm, name=name)
            return block(h, *text_of(cond, len(h), self.context_dim))
        block = remat(AttentionBlock, self.remat)
        return block(self.num_heads, self.head_dim, self.dtype, self._norm, name=name)(h)

    def _block(self, h: Array, emb: Array, cond: Cond, level: int, train: bool, name: str) -> Array:
        h = self._res_block(self.channel_mults[level], name=name)(h, emb, train)
        if level in self.attention_levels:
            h = self._attention(h, cond, f"{name}_attention")
        return h

    def _resample(
        self, h: Array, emb: Array, resample: Callable[[Array], Array], train: bool, name: str
    ) -> Array:
        features = h.shape[-1]
        if self.resblock_updown:
            mult = features // self.channels
            return self._res_block(mult, f"{name}_resample", resample)(h, emb, train)
        conv = partial(Conv, features, dtype=self.dtype, name=f"{name}_resample")
        if resample is upsample:
            return conv()(upsample(h))
        padding = [(1, 1)] * (h.ndim - 2) if self.symmetric_padding else "SAME"
        return conv(stride=2, padding=padding)(h)

    def _check_levels(self, sizes: Sequence[int]) -> None:
        levels = len(self.channel_mults)
        if not set(self.attention_levels) <= set(range(levels)):
            raise ValueError(
                f"model.unet.attention_levels={tuple(self.attention_levels)} must be some of the "
                f"{levels} levels of model.unet.channel_mults={tuple(self.channel_mults)}: 0 (full "
                f"size) to {levels - 1}"
            )
        factor = self.patch_size * 2 ** (levels - 1)
        if any(size % factor for size in sizes):
            raise ValueError(
                f"all sides of size {'x'.join(map(str, sizes))} must be multiples of {factor}: the "
                f"{levels} levels of model.unet.channel_mults={tuple(self.channel_mults)} halve "
                f"them {levels - 1} time(s) after patches of model.unet.patch_size="
                f"{self.patch_size}"
            )
