"""The InceptionV3 of the FID: the network of 2015-12-05 and its pooled features.

Szegedy et al. 2016; Heusel et al. 2017 for the FID. Modules are named as in the published weights
`pt_inception-2015-12-05-6726825d.pth`, which were converted from TensorFlow's graph. Unlike in
torchvision's Inception, average pools do not count the padding, and the pool of the last block is a
maximum.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.types import Array

Kernel = int | tuple[int, int]
Layer = tuple[int, Kernel]  # channels and kernel size


class ConvNorm(nn.Module):
    """A convolution without bias, frozen batch normalisation, ReLU."""

    features: int
    kernel_size: Kernel = 1
    stride: int = 1
    padding: str = ""  # "": same size with stride 1, else no padding

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', features]."""
        size = self.kernel_size
        kernel = (size, size) if isinstance(size, int) else size
        padding = self.padding or ("SAME" if self.stride == 1 else "VALID")
        x = nn.Conv(
            self.features, kernel, self.stride, padding=padding, use_bias=False, name="conv"
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


def branch(x: Array, name: str, *layers: Layer, stride: int = 1) -> Array:
    """Convolutions in sequence, numbered if there are several; only the last has the stride."""
    for number, (features, kernel) in enumerate(layers, start=1):
        own = f"{name}_{number}" if len(layers) > 1 else name
        x = ConvNorm(features, kernel, stride if number == len(layers) else 1, name=own)(x)
    return x


def average(x: Array) -> Array:
    """Mean over 3 x 3 pixels; at the border, over those inside the image."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def halve(x: Array) -> Array:
    """Maximum over 3 x 3 pixels with stride 2."""
    return nn.max_pool(x, (3, 3), strides=(2, 2))


class Mixed(nn.Module):
    """Branches on one input, with their channels concatenated: one of the functions below."""

    branches: Callable[[Array], list[Array]]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', channels of all branches]."""
        return jnp.concatenate(self.branches(x), axis=-1)


def mixed_a(x: Array, pool_features: int) -> list[Array]:
    """1x1, 5x5 and two 3x3 convolutions, and a pool: 224 + pool_features channels of 35 x 35."""
    return [
        branch(x, "branch1x1", (64, 1)),
        branch(x, "branch5x5", (48, 1), (64, 5)),
        branch(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3)),
        branch(average(x), "branch_pool", (pool_features, 1)),
    ]


def mixed_b(x: Array) -> list[Array]:
    """Halves the size from 35 to 17 pixels: 480 + C channels."""
    return [
        branch(x, "branch3x3", (384, 3), stride=2),
        branch(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3), stride=2),
        halve(x),
    ]


def mixed_c(x: Array, c: int) -> list[Array]:
    """7x7 convolutions, factorised into 1x7 and 7x1, of inner width c: 768 channels of 17 x 17."""
    across, down = (1, 7), (7, 1)
    return [
        branch(x, "branch1x1", (192, 1)),
        branch(x, "branch7x7", (c, 1), (c, across), (192, down)),
        branch(x, "branch7x7dbl", (c, 1), (c, down), (c, across), (c, down), (192, across)),
        branch(average(x), "branch_pool", (192, 1)),
    ]


def mixed_d(x: Array) -> list[Array]:
    """Halves the size from 17 to 8 pixels: 512 + C channels."""
    return [
        branch(x, "branch3x3", (192, 1), (320, 3), stride=2),
        branch(x, "branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), stride=2),
        halve(x),
    ]


def mixed_e(x: Array, pool: Callable[[Array], Array]) -> list[Array]:
    """Convolutions that branch into 1x3 and 3x1, and a pool: 2048 channels of 8 x 8."""

    def fork(x: Array, name: str) -> list[Array]:
        return [branch(x, f"{name}a", (384, (1, 3))), branch(x, f"{name}b", (384, (3, 1)))]

    return [
        branch(x, "branch1x1", (320, 1)),
        *fork(branch(x, "branch3x3_1", (384, 1)), "branch3x3_2"),
        *fork(branch(x, "branch3x3dbl", (448, 1), (384, 3)), "branch3x3dbl_3"),
        branch(pool(x), "branch_pool", (192, 1)),
    ]


class InceptionV3(nn.Module):
    """The frozen network: 23.9 M parameters."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Images in [-1, 1], [B, 299, 299, 3], to logits [B, 1008] and features [B, 2048].

        The features are the spatial mean of the last block ("pool3").
        """
        x = ConvNorm(32, 3, 2, name="Conv2d_1a_3x3")(x)
        x = ConvNorm(32, 3, padding="VALID", name="Conv2d_2a_3x3")(x)
        x = halve(ConvNorm(64, 3, name="Conv2d_2b_3x3")(x))
        x = ConvNorm(80, name="Conv2d_3b_1x1")(x)
        x = halve(ConvNorm(192, 3, padding="VALID", name="Conv2d_4a_3x3")(x))
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            x = Mixed(partial(mixed_a, pool_features=pooled), name=f"Mixed_5{letter}")(x)
        x = Mixed(mixed_b, name="Mixed_6a")(x)
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x = Mixed(partial(mixed_c, c=width), name=f"Mixed_6{letter}")(x)
        x = Mixed(mixed_d, name="Mixed_7a")(x)
        x = Mixed(partial(mixed_e, pool=average), name="Mixed_7b")(x)
        largest = partial(nn.max_pool, window_shape=(3, 3), padding="SAME")  # as in TensorFlow
        x = Mixed(partial(mixed_e, pool=largest), name="Mixed_7c")(x)
        features = jnp.mean(x, (1, 2))
        return nn.Dense(1008, name="fc")(features), features
