"""Multi-head attention: of positions, by the fused kernel where there is one, and within texts."""

import functools
import math

import jax
import jax.numpy as jnp

from diffusion_jax.models.layers import at_least_float32
from diffusion_jax.models.platform import needs_jvp, platform
from diffusion_jax.types import Array


def attention(q: Array, k: Array, v: Array, num_heads: int, lengths: Array | None = None) -> Array:
    """Multi-head attention over positions: q [B, L, C], k and v [B, M, C] -> [B, L, C].

    With `lengths` int32 [B] only the first so many of the M positions, and at least one, are there.

    On a GPU by cuDNN's fused kernel (FlashAttention, Dao et al. 2022) where it takes the arrays and
    needs no JVP, on a TPU by the library.
    """
    q, k, v = (a.reshape(*a.shape[:2], num_heads, -1) for a in (q, k, v))
    if lengths is not None:
        lengths = jnp.maximum(lengths, 1)
    kernel = functools.partial(
        jax.nn.dot_product_attention, key_value_seq_lengths=lengths, implementation="xla"
    )
    if platform() == "cpu":  # the same, at half the library's time
        logits = jnp.einsum("bqhd,bkhd->bhqk", q / math.sqrt(q.shape[-1]), k)
        if lengths is not None:
            there = jnp.arange(k.shape[1]) < lengths[:, None]
            logits = jnp.where(there[:, None, None], logits, -jnp.inf)
        weights = jax.nn.softmax(at_least_float32(logits)).astype(v.dtype)
        out: Array = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    elif platform() == "gpu" and fits_cudnn(q):
        if has_cudnn() and not needs_jvp():
            out = kernel(q, k, v, implementation="cudnn")
        else:  # also of a GPU elsewhere that is planned for: like the kernel, it keeps no weights
            out = jax.checkpoint(kernel)(q, k, v)
    else:
        out = kernel(q, k, v)
    return out.reshape(*out.shape[:2], -1)


def fits_cudnn(heads: Array) -> bool:
    """Whether the kernel takes `heads` [B, L, H, D]: half precision, D a multiple of 8 up to 128.

    From 9.0 on it takes heads of up to 256, which no network here has.
    """
    half = heads.dtype in (jnp.bfloat16, jnp.float16)
    return half and heads.shape[-1] % 8 == 0 and heads.shape[-1] <= 128


def has_cudnn() -> bool:
    """Whether the GPUs of this process run the kernel: NVIDIA's from compute capability 8.0 on."""
    if jax.default_backend() != "gpu":
        return False
    device = jax.local_devices()[0]
    capability = str(getattr(device, "compute_capability", ""))  # AMD's are such as "gfx90a"
    cuda = "cuda" in device.client.platform_version.lower()
    return cuda and float(capability or 0) >= 8


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
