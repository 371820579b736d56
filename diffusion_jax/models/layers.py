"""What networks share: their inputs and output, convolution, normalisation."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from diffusion_jax.models.products import Padding, conv, matmul
from diffusion_jax.types import Array, Cond

Dtype = Any
Initializer = Callable[[Array, Sequence[int], Dtype], Array]

fan_avg_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
"""The initializer of every weight of DDPM, and Xavier's, DiT's."""

zeros = nn.initializers.zeros

LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)
"""The variance is the mean of squared deviations, which holds far from zero as well."""


def at_least_float32(x: Array) -> Array:
    """`x` for statistics: half precision becomes float32, float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def sinusoidal_embedding(t: Array, features: int, max_period: float = 1e4) -> Array:
    """Cosines and sines of `t` [B] at `features // 2` geometric frequencies: float32 [B, features].

    Section 3.5 of Vaswani et al. 2017, in the layout of ADM and DiT: cosines first.
    """
    half = features // 2
    frequencies = jnp.exp(-math.log(max_period) / half * jnp.arange(half, dtype=jnp.float32))
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class ConditionEmbedding(nn.Module):
    """One vector per sample for the time and, where there are any, the label and other vectors."""

    features: int
    frequencies: int  # width of the sinusoidal embedding of the time
    num_classes: int  # labels run from 0 to `num_classes - 1`; 0 means no label embedding
    vectors: Sequence[str]  # names of float vectors [B, D] in `cond`
    dtype: Dtype

    @nn.compact
    def __call__(self, t: Array, cond: Cond) -> Array:
        """Times [B], `cond['label']` int32 [B] or missing -> [B, features].

        A label of -1, or none at all, is the unconditional case and has the last row of the table
        to itself; a vector of zeros, or none at all, has a learned one.
        """
        init = nn.initializers.normal(0.02)
        emb = sinusoidal_embedding(t, self.frequencies).astype(self.dtype)
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
    """A network `(x_t, t, cond, train) -> prediction`, for samples of any number of axes.

    It is given noisy samples `x_t` [B, ..., C], times `t` [B] as the process tells them
    (`process.TimeInput`), and `cond` as in `conditioning.py`, of which it reads what its attributes
    say: `label`, `text`, the `vectors`, `image`. What is off or not there is unconditional. With
    `train` dropout is on, where there is one; it takes the 'dropout' key. The prediction is float32
    [B, ..., out_channels].
    """

    # width of the embedded texts `cond['text']` that attention goes to as well; 0 is no text
    context_dim: int = 0
    num_classes: int = 0  # classes of `cond['label']`; 0 for none
    vectors: Sequence[str] = ()  # names of the vectors in `cond` that are read, such as 'pooled'
    image_channels: int = 0  # of `cond['image']`, of the sample's own axes, beside it; 0 for none
    out_channels: int = 3  # channels of the prediction; twice the sample's with a learned variance
    remat: str = "none"  # what blocks compute again in the backward pass, a name of `remat.REMAT`
    dtype: Dtype = jnp.float32  # compute dtype; parameters and output are float32

    def embedding(self, t: Array, cond: Cond, features: int, frequencies: int) -> Array:
        """What all blocks read of the times and of `cond`: [B, features]."""
        embed = ConditionEmbedding(
            features, frequencies, self.num_classes, self.vectors, self.dtype, name="embedding"
        )
        return nn.silu(embed(t, cond))


def beside(x_t: Array, cond: Cond, channels: int) -> Array:
    """Noisy samples [B, ..., C] with `cond['image']` [B, ..., channels] -> [B, ..., C + 1 + ...].

    `cond['image']` is a signal of the sample's own axes: an image beside images, sound beside
    sound. The last channel is 1 where there is one, and all of its channels are 0 where there is
    none, or all of it is 0. With `channels` 0 it is `x_t`.
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
) -> nn.Dense:
    """A linear layer with the initializer of this package."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        dot_general=lambda x, kernel, *_, **__: matmul(x, kernel),
        name=name,
    )


class Conv(nn.Module):
    """Convolution over `[B, ..., C]` with a kernel of equal sides, padding and a bias.

    'SAME' with stride 2 is no pixel on the left and one on the right of an even size.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: Padding = "SAME"
    kernel_init: Initializer = fan_avg_uniform
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features], for any number of axes."""
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

    32 groups as in DDPM and ADM; in narrow networks fewer, so that a group has four channels
    or more.
    """

    dtype: Dtype = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., C]."""
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", zeros, (c,), jnp.float32)
        groups = num_groups(c)

        def group_mean(x: Array) -> Array:
            """Mean over the group of each channel, pixels first: [B, ..., C] -> [B, 1, ..., C]."""
            mean = x.mean(tuple(range(1, x.ndim - 1))).reshape(-1, groups, c // groups).mean(-1)
            return everywhere(jnp.repeat(mean, c // groups, axis=-1), x)

        x = at_least_float32(x)
        x -= group_mean(x)  # first: the mean of squares would lose the variance of a large mean
        # One multiply-add per pixel: the variance and the scale meet on [B, C].
        scale *= lax.rsqrt(group_mean(jnp.square(x)) + self.epsilon)
        return (x * scale + bias).astype(self.dtype)


def num_groups(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32 and leaves four channels a group."""
    return max(n for n in range(1, max(2, min(32, channels // 4) + 1)) if channels % n == 0)


def everywhere(vectors: Array, x: Array) -> Array:
    """A vector for each sample, to broadcast over the places of x: [B, D] -> [B, 1, ..., D]."""
    return jnp.expand_dims(vectors, range(1, x.ndim - 1))


def upsample(x: Array) -> Array:
    """Nearest neighbour, twice the size: [B, H, W, C] -> [B, 2H, 2W, C], for any number of axes."""
    b, *sizes, c = x.shape
    x = jnp.expand_dims(x, range(2, 2 * x.ndim - 3, 2))
    doubled = jnp.broadcast_to(x, (b, *(n for size in sizes for n in (size, 2)), c))
    return doubled.reshape(b, *(2 * size for size in sizes), c)


def downsample(x: Array, p: int = 2) -> Array:
    """Mean over p x p pixels: [B, H, W, C] -> [B, H / p, W / p, C], for any number of axes."""
    pieces = _cut(x, p)
    return pieces.mean(tuple(range(2, pieces.ndim - 1, 2)))


def patchify(x: Array, patch_size: int) -> Array:
    """Patches of p x p pixels become one, on any axes: [B, H, W, C] -> [B, H / p, W / p, p p C]."""
    x = _cut(x, patch_size)
    last = x.ndim - 1
    x = x.transpose(0, *range(1, last, 2), *range(2, last, 2), last)
    return x.reshape(*x.shape[: (last + 1) // 2], -1)


def unpatchify(x: Array, patch_size: int) -> Array:
    """Undo `patchify`: [B, H / p, W / p, p p C] -> [B, H, W, C]."""
    b, *sizes, _ = x.shape
    n = len(sizes)
    x = x.reshape(b, *sizes, *[patch_size] * n, -1)
    x = x.transpose(0, *(axis for i in range(1, n + 1) for axis in (i, n + i)), 2 * n + 1)
    return x.reshape(b, *(size * patch_size for size in sizes), -1)


def _cut(x: Array, p: int) -> Array:
    """Each axis in pieces of `p`: [B, H, W, C] -> [B, H / p, p, W / p, p, C]."""
    b, *sizes, c = x.shape
    return x.reshape(b, *(n for size in sizes for n in (size // p, p)), c)
