"""Multi-head attention: over positions, with fused kernels, and masked within texts."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffusion_jax.models.layers import at_least_float32
from diffusion_jax.models.layout import of_each_device
from diffusion_jax.models.platform import capability, needs_jvp, platform
from diffusion_jax.types import Array

BLOCK = 512  # positions at a time of the kernel for TPUs


@jax.named_scope("dot_product_attention")  # in profiles and compiled programs
def attention(
    q: Array,
    k: Array,
    v: Array,
    num_heads: int,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """Multi-head attention over positions: q [B, L, C], k and v [B, M, C] -> [B, L, C].

    With `lengths` int32 [B], only the first `max(lengths, 1)` of the M positions are attended to,
    and with `mask` bool [L, M] only those where it is true, one at least for each of the L.

    With a fused kernel (FlashAttention, Dao et al. 2022) if that supports the arrays and no JVP is
    needed: on a GPU cuDNN's, and on a TPU that of Pallas, for long sequences.
    """
    q, k, v = (a.reshape(*a.shape[:2], num_heads, -1) for a in (q, k, v))
    if lengths is not None:
        lengths = jnp.maximum(lengths, 1)
    kernel = functools.partial(
        jax.nn.dot_product_attention,
        mask=None if mask is None else mask[None, None],
        key_value_seq_lengths=lengths,
        implementation="xla",
    )
    if platform() == "cpu" or q.dtype == jnp.float64:  # on CPUs, half the library's time
        masks = [] if mask is None else [mask]
        if lengths is not None:
            masks.append((jnp.arange(k.shape[1]) < lengths[:, None])[:, None, None])
        out = _by_weights(q, k, v, masks)
    elif platform() == "gpu" and fits_cudnn(q):
        if has_cudnn() and not needs_jvp():
            out = kernel(q, k, v, implementation="cudnn")
        else:  # also for GPUs that are only estimated: like the kernel, it stores no weights
            out = jax.checkpoint(kernel)(q, k, v)
    else:
        fused = None
        whole = lengths is None and mask is None
        if platform() == "tpu" and whole and fits_pallas(q, k) and not needs_jvp():
            fused = of_each_device(_pallas_attention)
        out = (fused or kernel)(q, k, v)
    return out.reshape(*out.shape[:2], -1)


def _by_weights(q: Array, k: Array, v: Array, masks: Sequence[Array]) -> Array:
    """Attention of heads [B, L, H, D] whose softmax is float64 for these, unlike the library's.

    `masks` are broadcastable to [B, H, L, M]. Rows that attend to none get a mean of `v`.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", q / math.sqrt(q.shape[-1]), k)
    for mask in masks:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(at_least_float32(logits)).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _pallas_attention(q: Array, k: Array, v: Array) -> Array:
    """Attention of heads [B, L, H, D], [B, M, H, D] on one TPU, by blocks of `BLOCK` positions."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas  # for TPUs alone

    names = [field.name for field in dataclasses.fields(pallas.BlockSizes)]
    blocks = pallas.BlockSizes(**{name: 1 if name == "block_b" else BLOCK for name in names})
    heads = (jnp.swapaxes(a, 1, 2) for a in (q, k, v))
    scale = 1 / math.sqrt(q.shape[-1])
    out: Array = pallas.flash_attention(*heads, sm_scale=scale, block_sizes=blocks)
    return jnp.swapaxes(out, 1, 2)


def fits_pallas(q: Array, k: Array) -> bool:
    """Whether the kernel for TPUs supports heads [B, L, H, D] and pays: in half precision.

    As compiled for a v5e, forwards and backwards, it moves 0.71 of the bytes at 512 positions and
    less than half at 1,024; at 256 no fewer, as the weights stay in the chip.
    """
    half, lengths = q.dtype == jnp.bfloat16, (q.shape[1], k.shape[1])
    return half and all(n >= BLOCK and n % BLOCK == 0 for n in lengths)


def fits_cudnn(heads: Array) -> bool:
    """Whether cuDNN supports `heads` [B, L, H, D]: half precision, D a multiple of 8, at most 128.

    At most 256 where the compute capability is 9.0 (Hopper) or later, as for heads of 160 in Stable
    Diffusion.
    """
    half, most = heads.dtype in (jnp.bfloat16, jnp.float16), 256 if capability() >= 9 else 128
    return half and heads.shape[-1] % 8 == 0 and heads.shape[-1] <= most


def has_cudnn() -> bool:
    """Whether the target's GPUs run the kernel: NVIDIA, compute capability 8.0 or later."""
    return capability() >= 8


def causal(length: int) -> Array:
    """A mask, bool [L, L]: every position attends to itself and to earlier ones."""
    return jnp.tri(length, dtype=bool)


def block_mask(length: int, block: int) -> Array:
    """A mask, bool [L, L], of block diffusion (Arriola et al. 2025).

    The first half of the positions is noisy and the second the same tokens without noise. Noisy
    ones attend to their own block, and to earlier blocks without noise; those without noise attend
    to their own block and to earlier ones.
    """
    place = jnp.arange(length)
    noisy = place < length // 2
    number = place % (length // 2) // block
    earlier = number[:, None] > number
    own = (number[:, None] == number) & (noisy[:, None] == noisy)
    return own | (earlier & ~noisy)


@jax.named_scope("dot_product_attention")
def masked_attention(q: Array, k: Array, v: Array, num_heads: int, mask: Array) -> Array:
    """Multi-head attention within texts: q, k and v [B, L, C] -> [B, L, C].

    `mask`, bool and broadcastable to [B, L, L]: whether a token (row) attends to another (column).
    Rows that attend to none get finite values without meaning.
    """
    q, k, v = (a.reshape(*a.shape[:2], num_heads, -1) for a in (q, k, v))
    if q.dtype == jnp.float64:
        out = _by_weights(q, k, v, [mask[:, None]])
    else:  # not cuDNN's kernel, which does not support rows that are fully masked
        out = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation="xla")
    return out.reshape(*out.shape[:2], -1)


def token_mask(tokens: Array, causal: bool) -> Array:
    """Attention mask, bool [B, L, L], of tokens int32 [B, L], where -1 is padding.

    Tokens attend to all that are not padding; if `causal`, not to later ones.
    """
    length = tokens.shape[1]
    mask = jnp.broadcast_to((tokens >= 0)[:, None], (len(tokens), length, length))
    return mask & jnp.tri(length, dtype=bool) if causal else mask
