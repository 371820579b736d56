"""Attention to text in a U-Net: the spatial transformer of latent diffusion.

Rombach et al. 2022, section 3.3 and appendix E.2.1. Stable Diffusion v1-5's U-Net, with 859,520,964
parameters for latents of 64 x 64 x 4 and texts of 77 x 768, is

    UNet(channels=320, channel_mults=(1, 2, 4, 4), num_blocks=2, attention_levels=(0, 1, 2),
         num_heads=8, context_dim=768, symmetric_padding=True, dropout=0.0, out_channels=4)
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.attention import attention
from diffusion_jax.models.layers import (
    Dtype,
    GroupNorm,
    Initializer,
    LayerNorm,
    dense,
    fan_avg_uniform,
    zeros,
)
from diffusion_jax.models.layout import keep_rows
from diffusion_jax.types import Array, Cond


class SpatialTransformer(nn.Module):
    """Residual block: self-attention over all pixels, attention to a text, then an MLP."""

    num_heads: int  # heads of both attentions
    dtype: Dtype = jnp.float32
    norm: Callable[..., GroupNorm] = GroupNorm

    @nn.compact
    def __call__(self, x: Array, text: Array, lengths: Array) -> Array:
        """Samples x [B, ..., C] and texts [B, L, D] of `lengths` [B] tokens -> [B, ..., C]."""
        b, *_, c = x.shape
        layer = partial(dense, dtype=self.dtype)
        norm = partial(LayerNorm, epsilon=1e-5, dtype=self.dtype)
        h = self.norm(self.dtype, epsilon=1e-6, name="norm")(x).reshape(b, -1, c)
        h = layer(c, name="proj_in")(h)
        to_heads = partial(attend, num_heads=self.num_heads, dtype=self.dtype)
        own = norm(name="norm_self")(h)
        h += to_heads(own, own, "self")
        h += to_heads(norm(name="norm_text")(h), text, "text", lengths)
        # GEGLU (Shazeer 2020) with the exact GELU.
        up, gate = jnp.split(layer(8 * c, name="mlp_0")(norm(name="norm_mlp")(h)), 2, axis=-1)
        h += layer(c, name="mlp_1")(up * nn.gelu(gate, approximate=False))
        return keep_rows(x + layer(c, kernel_init=zeros, name="proj_out")(h).reshape(x.shape))


def attend(
    h: Array,
    context: Array,
    name: str,
    lengths: Array | None = None,
    *,
    num_heads: int,
    dtype: Dtype,
    out_init: Initializer = fan_avg_uniform,
) -> Array:
    """Attention from h [B, P, C] to a context [B, L, D], inside a compact module -> [B, P, C].

    Only the output has a bias, so that rows of zeros contribute nothing: a text without tokens adds
    a constant.
    """
    c = h.shape[-1]
    q, k, v = (
        dense(c, dtype=dtype, use_bias=False, name=f"{name}_{part}")(source.astype(dtype))
        for part, source in (("q", h), ("k", context), ("v", context))
    )
    out = dense(c, out_init, dtype, name=f"{name}_out")
    return out(attention(q, k, v, num_heads, lengths))


def text_of(cond: Cond, rows: int, width: int) -> tuple[Array, Array]:
    """`cond['text']` [B, L, width], or one row of zeros if missing, and its numbers of tokens [B].

    The tokens come first; padding is rows of zeros.
    """
    text = cond.get("text", jnp.zeros((rows, 1, width)))
    return text, jnp.sum(jnp.any(text != 0, axis=-1), axis=-1, dtype=jnp.int32)
