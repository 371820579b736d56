"""Layers shared by networks: input and output interface, convolution, normalisation."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from diffusion_jax.models.products import Padding, conv, matmul
from diffusion_jax.types import Array, Cond

Dtype = Any
Initializer = Callable[[Array, Sequence[int], Dtype], Array]

fan_avg_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
"""The initializer of all weights in DDPM; in DiT it is called Xavier."""

zeros = nn.initializers.zeros

PRODUCT = "product"
"""What policies of rematerialisation call the products of `dense`."""

LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)
"""Computes the variance from squared deviations, which is accurate for large means too."""


def at_least_float32(x: Array) -> Array:
    """`x` for computing statistics: half precision becomes float32, float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def sinusoidal_embedding(
    t: Array, features: int, max_period: float = 1e4, dtype: Dtype = jnp.float32
) -> Array:
    """Cosines and sines of `t` [B] at `features // 2` geometric frequencies: [B, features].

    Section 3.5 of Vaswani et al. 2017, in the layout of ADM and DiT: cosines first. `dtype` is
    float32 or float64, since angles reach 1000.
    """
    half = features // 2
    frequencies = jnp.exp(-math.log(max_period) / half * jnp.arange(half, dtype=dtype))
    angles = t.astype(dtype)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class ConditionEmbedding(nn.Module):
    """One embedding per sample of the time and, if given, the label and other vectors."""

    features: int
    frequencies: int  # width of the sinusoidal time embedding
    num_classes: int  # labels are 0 to `num_classes - 1`; 0: no label embedding
    vectors: Sequence[str]  # names of float vectors [B, D] in `cond`
    dtype: Dtype

    @nn.compact
    def __call__(self, t: Array, cond: Cond) -> Array:
        """Times [B], `cond['label']` int32 [B] or missing -> [B, features].

        A label of -1, or a missing one, is unconditional and has its own row in the table; a
        missing or all-zero vector is replaced by a learned embedding.
        """
        init = nn.initializers.normal(0.02)
        exact = jnp.promote_types(self.dtype, jnp.float32)
        emb = sinusoidal_embedding(t, self.frequencies, dtype=exact).astype(self.dtype)
        emb = dense(self.features, dtype=self.dtype, name="time_0")(emb)
        emb = dense(self.features, dtype=self.dtype, name="time_1")(nn.silu(emb))
        if self.num_classes:
            label = cond.get("label", jnp.full(t.shape, -1, jnp.int32))
            label = jnp.where(label < 0, self.num_classes, label)
            size = self.num_classes + 1, self.features
            emb = emb + nn.Embed(*size, self.dtype, embedding_init=init, name="label")(label)
        for name in self.vectors:
            added = self.param(f"no_{name}", init, (self.features,)).astype(self.dtype)
            if name in cond:
                vector = cond[name].astype(self.dtype)
                layer = dense(self.features, use_bias=False, dtype=self.dtype, name=name)
                there = jnp.any(vector != 0, axis=-1, keepdims=True)
                added = jnp.where(there, layer(vector), added)
            emb = emb + added
        return emb


class Network(nn.Module, kw_only=True):
    """Base class: `(x_t, t, cond, train) -> prediction`, for samples with any number of axes.

    Inputs are noisy samples `x_t` [B, ..., C], time inputs `t` [B] of the process
    (`process.TimeInput`), and `cond` as in `conditioning.py`, of which the attributes below select
    `label`, `text`, the `vectors`, `image` and `inpainting`. Missing or switched-off parts are
    unconditional, except the last, which is needed.
    `train` enables dropout, which needs the 'dropout' key. The prediction [B, ..., out_channels] is
    float32, or float64 with that `dtype`.
    """

    # width of the token features `cond['text']` for cross-attention; 0: no text
    context_dim: int = 0
    num_classes: int = 0  # classes of `cond['label']`; 0 for none
    vectors: Sequence[str] = ()  # names of the vectors in `cond` to use, such as 'pooled'
    image_channels: int = 0  # channels of the second input `cond['image']`; 0 for none
    inpainting_channels: int = 0  # channels of `cond['inpainting']`; 0 for none
    out_channels: int = 3  # channels of the prediction; twice the sample's with a learned variance
    remat: str = "none"  # rematerialisation of blocks, a name of `remat.REMAT`
    # compute dtype; parameters are initialised in float32, and others keep their dtype
    dtype: Dtype = jnp.float32

    def embedding(self, t: Array, cond: Cond, features: int, frequencies: int) -> Array:
        """Embedding of the times and of `cond` for all blocks: [B, features]."""
        embed = ConditionEmbedding(
            features, frequencies, self.num_classes, self.vectors, self.dtype, name="embedding"
        )
        return nn.silu(embed(t, cond))

    def beside(self, x_t: Array, cond: Cond) -> Array:
        """Concatenates x_t [B, ..., C] and those of `cond`'s signals on its axes that are inputs.

        The order is that of Stable Diffusion's inpainting network; no channel tells it whether
        `cond['inpainting']` is given, as it must be.

        Raises:
            ValueError: it is not.
        """
        if self.inpainting_channels:
            if "inpainting" not in cond:
                raise ValueError("the network paints pictures, and needs cond['inpainting']")
            x_t = jnp.concatenate([x_t, cond["inpainting"].astype(x_t.dtype)], axis=-1)
        return beside(x_t, cond, self.image_channels)


def beside(x_t: Array, cond: Cond, channels: int) -> Array:
    """Concatenates x_t [B, ..., C], `cond['image']` [B, ..., channels] and a flag channel.

    `cond['image']` is a signal with the sample's axes: an image for images, sound for sound. The
    flag is 1 where it is given; if it is missing or all zeros, its channels and the flag are 0.
    If `channels` is 0 the result is `x_t`.
    """
    if not channels:
        return x_t
    image = cond.get("image", jnp.zeros((*x_t.shape[:-1], channels), x_t.dtype))
    there = jnp.any(image != 0, tuple(range(1, x_t.ndim)), keepdims=True).astype(x_t.dtype)
    there = jnp.broadcast_to(there, (*x_t.shape[:-1], 1))
    return jnp.concatenate([x_t, image.astype(x_t.dtype), there], axis=-1)


def dense(
    features: int,
    kernel_init: Initializer = fan_avg_uniform,
    dtype: Dtype = jnp.float32,
    use_bias: bool = True,
    name: str | None = None,
    made_by: Callable[..., nn.Dense] = nn.Dense,
) -> nn.Dense:
    """A linear layer with this package's initializer and matrix product."""
    return made_by(
        features,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        dot_general=lambda x, kernel, *_, **__: checkpoint_name(matmul(x, kernel), PRODUCT),
        name=name,
    )


class Conv(nn.Module):
    """Convolution over `[B, ..., C]` with a kernel of equal sides, and a bias.

    'SAME' with stride 2 pads an even size by one pixel on the right only.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: Padding = "SAME"
    kernel_init: Initializer = fan_avg_uniform
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features], with any number of axes."""
        shape = (*[self.kernel_size] * (x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.kernel_size == 1 and self.stride == 1:
            y = matmul(x, kernel.reshape(shape[-2:]))
        else:
            y = conv(x, kernel, self.stride, self.padding)
        return y + bias.astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) with a learned scale and bias per channel.

    By default 32 groups as in DDPM and ADM; fewer in narrow networks, so that a group has at least
    four channels.
    """

    dtype: Dtype = jnp.float32
    epsilon: float = 1e-5
    groups: int = 0  # divides the channels; 0: `num_groups` of them

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., C]."""
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", zeros, (c,), jnp.float32)
        groups = self.groups or num_groups(c)
        if c % groups:
            raise ValueError(f"{c} channels cannot be split into {groups} groups evenly")

        def group_mean(x: Array) -> Array:
            """Mean over the group of each channel: [B, ..., C] -> [B, 1, ..., C]."""
            mean = x.mean(tuple(range(1, x.ndim - 1))).reshape(-1, groups, c // groups).mean(-1)
            return everywhere(jnp.repeat(mean, c // groups, axis=-1), x)

        x = at_least_float32(x)
        x -= group_mean(x)  # the mean of squares would lose the variance around a large mean
        # One multiply-add per pixel: scale and variance are combined on [B, C].
        scale *= lax.rsqrt(group_mean(jnp.square(x)) + self.epsilon)
        return (x * scale + bias).astype(self.dtype)


def num_groups(channels: int) -> int:
    """The largest divisor of `channels`, at most 32, with at least four channels per group."""
    return max(n for n in range(1, max(2, min(32, channels // 4) + 1)) if channels % n == 0)


def everywhere(vectors: Array, x: Array) -> Array:
    """A vector per sample, broadcastable over the positions of x: [B, D] -> [B, 1, ..., D]."""
    return jnp.expand_dims(vectors, range(1, x.ndim - 1))


def upsample(x: Array) -> Array:
    """Nearest neighbour to twice the size: [B, H, W, C] -> [B, 2H, 2W, C], any number of axes."""
    b, *sizes, c = x.shape
    x = jnp.expand_dims(x, range(2, 2 * x.ndim - 3, 2))
    doubled = jnp.broadcast_to(x, (b, *(n for size in sizes for n in (size, 2)), c))
    return doubled.reshape(b, *(2 * size for size in sizes), c)


def downsample(x: Array, p: int = 2) -> Array:
    """Mean over p x p pixels: [B, H, W, C] -> [B, H / p, W / p, C], with any number of axes."""
    pieces = _cut(x, p)
    return pieces.mean(tuple(range(2, pieces.ndim - 1, 2)))


def patchify(x: Array, patch_size: int) -> Array:
    """Moves p x p patches to channels, on any axes: [B, H, W, C] -> [B, H / p, W / p, p p C]."""
    x = _cut(x, patch_size)
    last = x.ndim - 1
    x = x.transpose(0, *range(1, last, 2), *range(2, last, 2), last)
    return x.reshape(*x.shape[: (last + 1) // 2], -1)


def unpatchify(x: Array, patch_size: int) -> Array:
    """Inverse of `patchify`: [B, H / p, W / p, p p C] -> [B, H, W, C]."""
    b, *sizes, _ = x.shape
    n = len(sizes)
    x = x.reshape(b, *sizes, *[patch_size] * n, -1)
    x = x.transpose(0, *(axis for i in range(1, n + 1) for axis in (i, n + i)), 2 * n + 1)
    return x.reshape(b, *(size * patch_size for size in sizes), -1)


def _cut(x: Array, p: int) -> Array:
    """Splits each axis into pieces of `p`: [B, H, W, C] -> [B, H / p, p, W / p, p, C]."""
    b, *sizes, c = x.shape
    return x.reshape(b, *(n for size in sizes for n in (size // p, p)), c)
