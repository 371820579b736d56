"""ST-LPIPS, a perceptual distance that tolerates small shifts (Ghildyal & Liu 2022).

It is LPIPS (Zhang et al. 2018) over an AlexNet whose first convolution has stride 1 and which is
blurred wherever it is sampled, retrained: its values are not those of LPIPS. Modules are named as
in the published weights `alex_shift_tolerant.pth`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from diffusion_jax.types import Array

MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's, of pixels in [-1, 1]
SMALLEST = 21  # pixels; below, an array is too small to be reflected
PAD = 2


def blur_pool(x: Array) -> Array:
    """Every second pixel, after a blur by (1, 2, 1) / 4 along both axes (Zhang 2019).

    [B, H, W, C] -> [B, H // 2 + 1, W // 2 + 1, C] for even sides: reflected by two pixels.
    """
    x = jnp.pad(x, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
    for axis in (1, 2):
        size = x.shape[axis] - 2
        first, middle, last = (
            lax.slice_in_dim(x, start, start + size, 2, axis) for start in range(3)
        )
        x = (first + 2 * middle + last) / 4
    return x


def unit(x: Array) -> Array:
    """Features [B, H, W, C], each pixel's over their norm; 0 stays 0, with a gradient."""
    return x * lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-20)


class STLPIPS(nn.Module):
    """The distance of pairs of images: 2.47 M parameters, of which 1,152 weight the channels."""

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        """Images in [-1, 1], twice [B, H, W, 1 or 3] -> [B], 0 for equal ones.

        The sum over five layers of the mean over pixels of
        `sum_c w_c (f_c(a) / |f(a)| - f_c(b) / |f(b)|)^2` (Eq. 1, Zhang et al. 2018).

        Raises:
            ValueError: a side has fewer than `SMALLEST` pixels.
        """
        if min(a.shape[1:3]) < SMALLEST:
            raise ValueError(f"a: {a.shape} is less than {SMALLEST} pixels wide or high")
        a, b = (jnp.broadcast_to(x, (*x.shape[:-1], len(MEAN))) for x in (a, b))
        total = jnp.zeros(len(a))
        for layer, features in enumerate(self._features(jnp.concatenate([a, b]))):
            of_a, of_b = jnp.split(unit(features), 2)
            weigh = nn.Conv(1, (1, 1), use_bias=False, name=f"lin{layer}.model.1")
            total += weigh((of_a - of_b) ** 2).mean((1, 2, 3))
        return total

    def _features(self, x: Array) -> list[Array]:
        """Outputs of the five ReLUs."""

        def conv(x: Array, features: int, size: int, pad: int, name: str) -> Array:
            return nn.Conv(features, (size, size), padding=pad, name=f"net.{name}")(x)

        def shrink(x: Array) -> Array:
            return blur_pool(nn.max_pool(x, (3, 3)))

        x = (x - jnp.array(MEAN)) / jnp.array(STD)
        found = [nn.relu(blur_pool(conv(x, 64, 11, 2, "slice1.0")))]
        found.append(nn.relu(conv(shrink(found[-1]), 192, 5, 2, "slice2.5")))
        found.append(nn.relu(conv(shrink(found[-1]), 384, 3, 1, "slice3.9")))
        found.append(nn.relu(conv(found[-1], 256, 3, 1, "slice4.11")))
        found.append(nn.relu(conv(found[-1], 256, 3, 1, "slice5.13")))
        return found
