"""Attention to text within a U-Net: the spatial transformer of latent diffusion.

Rombach et al. 2022, section 3.3 and appendix E.2.1. Stable Diffusion v1-5's U-Net, of 859,520,964
parameters for latents of 64 x 64 x 4 and texts of 77 x 768, is

    UNet(channels=320, channel_mults=(1, 2, 4, 4), num_blocks=2, attention_resolutions=(64, 32, 16),
         num_heads=8, context_dim=768, symmetric_padding=True, dropout=0.0, out_channels=4)
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.attention import attention
from diffusion_jax.models.layers import Dtype, GroupNorm, dense, zeros
from diffusion_jax.models.layout import keep_rows
from diffusion_jax.types import Array


class SpatialTransformer(nn.Module):
    """Residual block: attention of all pixels to each other, then to a text, then an MLP.

    Attributes:
        num_heads: heads of both attentions.
        dtype: compute dtype.
    """

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, text: Array) -> Array:
        """Images x [B, H, W, C] and embedded texts [B, L, D] -> [B, H, W, C]."""
        b, height, width, c = x.shape
        layer = partial(dense, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)
        h = GroupNorm(self.dtype, epsilon=1e-6, name="norm")(x).reshape(b, height * width, c)
        h = layer(c, name="proj_in")(h)
        h += self._attend(norm(name="norm_self")(h), None, "self")
        h += self._attend(norm(name="norm_text")(h), text.astype(self.dtype), "text")
        # GEGLU (Shazeer 2020) with the exact GELU.
        up, gate = jnp.split(layer(8 * c, name="mlp_0")(norm(name="norm_mlp")(h)), 2, axis=-1)
        h += layer(c, name="mlp_1")(up * nn.gelu(gate, approximate=False))
        return keep_rows(x + layer(c, kernel_init=zeros, name="proj_out")(h).reshape(x.shape))

    def _attend(self, h: Array, text: Array | None, name: str) -> Array:
        """From h [B, P, C] to itself, or to the text; no biases but the last."""
        context = h if text is None else text
        c = h.shape[-1]
        q, k, v = (
            dense(c, dtype=self.dtype, use_bias=False, name=f"{name}_{part}")(source)
            for part, source in (("q", h), ("k", context), ("v", context))
        )
        return dense(c, dtype=self.dtype, name=f"{name}_out")(attention(q, k, v, self.num_heads))
