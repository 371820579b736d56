"""Multi-head attention, by the fused kernel where the platform has one."""

import math

import jax
import jax.numpy as jnp

from diffusion_jax.models.platform import platform
from diffusion_jax.types import Array


def attention(q: Array, k: Array, v: Array, num_heads: int) -> Array:
    """Multi-head attention over positions: q [B, L, C], k and v [B, M, C] -> [B, L, C].

    On a GPU by cuDNN's fused kernel (FlashAttention, Dao et al. 2022) where it takes the arrays, on
    a TPU by the library.
    """
    q, k, v = (a.reshape(*a.shape[:2], num_heads, -1) for a in (q, k, v))
    if platform() == "cpu":  # the same, at half the library's time
        logits = jnp.einsum("bqhd,bkhd->bhqk", q / math.sqrt(q.shape[-1]), k)
        weights = jax.nn.softmax(logits.astype(jnp.float32)).astype(v.dtype)
        out: Array = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    elif platform() == "gpu" and fits_cudnn(q):
        if has_cudnn():
            out = jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
        else:  # a GPU elsewhere that is planned for: like the kernel, this keeps no weights
            out = jax.checkpoint(jax.nn.dot_product_attention)(q, k, v)
    else:
        out = jax.nn.dot_product_attention(q, k, v)
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
