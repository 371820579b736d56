"""Attention of texts, whose tokens do not all see each other."""

import jax
import jax.numpy as jnp

from diffusion_jax.types import Array


def masked_attention(q: Array, k: Array, v: Array, num_heads: int, mask: Array) -> Array:
    """Multi-head attention within texts: q, k and v [B, L, C] -> [B, L, C].

    `mask`, bool [B, L, L] or such that broadcasts, is whether a token (row) sees another (column).
    One that sees none gets finite values that mean nothing.
    """
    q, k, v = (a.reshape(*a.shape[:2], num_heads, -1) for a in (q, k, v))
    # The library's own code: cuDNN's kernel takes no row that sees nothing.
    out = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation="xla")
    return out.reshape(*out.shape[:2], -1)


def token_mask(tokens: Array, causal: bool) -> Array:
    """Whether a token sees another, bool [B, L, L], of tokens int32 [B, L], -1 where there is none.

    All see those that are there; if `causal` none that come later.
    """
    length = tokens.shape[1]
    mask = jnp.broadcast_to((tokens >= 0)[:, None], (len(tokens), length, length))
    return mask & jnp.tri(length, dtype=bool) if causal else mask
