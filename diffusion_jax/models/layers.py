"""Layers shared by the networks: conditioning embeddings, convolution, normalisation."""

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


def sinusoidal_embedding(t: Array, features: int, max_period: float = 1e4) -> Array:
    """Cosines and sines of `t` [B] at `features // 2` geometric frequencies: float32 [B, features].

    Section 3.5 of Vaswani et al. 2017, in the layout of ADM and DiT: cosines first.
    """
    half = features // 2
    frequencies = jnp.exp(-math.log(max_period) / half * jnp.arange(half, dtype=jnp.float32))
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class ConditionEmbedding(nn.Module):
    """One vector per sample for the time and, where there are any, the label and other vectors.

    Attributes:
        features: width of the vector.
        frequencies: width of the sinusoidal embedding under it.
        num_classes: labels run from 0 to `num_classes - 1`; 0 means no label embedding.
        vectors: names of float vectors [B, D] in `cond`.
        dtype: compute dtype.
    """

    features: int
    frequencies: int
    num_classes: int = 0
    vectors: Sequence[str] = ()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, t: Array, cond: Cond) -> Array:
        """Times [B], `cond['label']` int32 [B] or missing -> [B, features].

        A label of -1, or none at
        all, is the unconditional case and has the last row of the table to itself; a vector of
        zeros, or none at all, has a learned one.
        """
        emb = sinusoidal_embedding(t, self.frequencies).astype(self.dtype)
        emb = dense(self.features, dtype=self.dtype, name="time_0")(emb)
        emb = dense(self.features, dtype=self.dtype, name="time_1")(nn.silu(emb))
        if self.num_classes:
            label = cond.get("label", jnp.full(t.shape, -1, jnp.int32))
            label = jnp.where(label < 0, self.num_classes, label)
            table = nn.Embed(
                self.num_classes + 1,
                self.features,
                embedding_init=nn.initializers.normal(0.02),
                dtype=self.dtype,
                name="label",
            )
            emb = emb + table(label)
        for name in self.vectors:
            none = self.param(f"no_{name}", nn.initializers.normal(0.02), (self.features,))
            none = none.astype(self.dtype)
            if name in cond:
                vector = cond[name].astype(self.dtype)
                layer = dense(self.features, use_bias=False, dtype=self.dtype, name=name)
                there = jnp.any(vector != 0, axis=-1, keepdims=True)
                emb = emb + jnp.where(there, layer(vector), none)
            else:
                emb = emb + none
        return emb


def beside(x_t: Array, cond: Cond, channels: int) -> Array:
    """Noisy images [B, H, W, C] with `cond['image']` [B, H, W, channels] -> [B, H, W, C + 1 + ...].

    The last channel is 1 where there is such a picture, and all of its channels are 0 where there
    is none, or all of it is 0. With `channels` 0 it is `x_t`.
    """
    if not channels:
        return x_t
    image = cond.get("image", jnp.zeros((*x_t.shape[:-1], channels), x_t.dtype))
    there = jnp.any(image != 0, axis=(1, 2, 3), keepdims=True).astype(x_t.dtype)
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
    """Convolution over `[B, H, W, C]` with a square kernel, padding and a bias.

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
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.kernel_size == 1 and self.stride == 1:
            y = matmul(x, kernel[0, 0])
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
        """[B, H, W, C] -> [B, H, W, C]."""
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", zeros, (c,), jnp.float32)
        groups = num_groups(c)

        def group_mean(x: Array) -> Array:
            """Mean over the group of each channel, pixels first: [B, H, W, C] -> [B, 1, 1, C]."""
            mean = x.mean((1, 2)).reshape(-1, groups, c // groups).mean(-1)
            return jnp.repeat(mean, c // groups, axis=-1)[:, None, None]

        x = x.astype(jnp.float32)
        mean = group_mean(x)
        variance = jnp.maximum(group_mean(jnp.square(x)) - jnp.square(mean), 0.0)
        # One multiply-add per pixel: the statistics and the parameters meet on [B, C].
        scale *= lax.rsqrt(variance + self.epsilon)
        return (x * scale + (bias - mean * scale)).astype(self.dtype)


def num_groups(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32 and leaves four channels a group."""
    return max(n for n in range(1, max(2, min(32, channels // 4) + 1)) if channels % n == 0)


def upsample(x: Array) -> Array:
    """Nearest neighbour, twice the size: [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
    """Mean over 2 x 2 pixels: [B, H, W, C] -> [B, H / 2, W / 2, C]."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def patchify(x: Array, patch_size: int) -> Array:
    """Every patch of p x p pixels becomes one: [B, H, W, C] -> [B, H / p, W / p, p p C]."""
    b, h, w, c = x.shape
    p = patch_size
    x = x.reshape(b, h // p, p, w // p, p, c).swapaxes(2, 3)
    return x.reshape(b, h // p, w // p, p * p * c)


def unpatchify(x: Array, patch_size: int) -> Array:
    """Undo `patchify`: [B, H / p, W / p, p p C] -> [B, H, W, C]."""
    b, h, w, _ = x.shape
    p = patch_size
    x = x.reshape(b, h, w, p, p, -1).swapaxes(2, 3)
    return x.reshape(b, h * p, w * p, -1)
