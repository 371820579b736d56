"""JPEG as an operator: all that loses information in it, with a derivative.

Baseline JPEG (ITU-T T.81) in a JFIF file: YCbCr, chroma at half the resolution, a cosine transform
of blocks of 8 x 8, and rounding to multiples of the quantisation tables. Coding the rounded
numbers loses nothing and is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion_jax.models.layers import downsample
from diffusion_jax.restoration.linear import LUMA
from diffusion_jax.types import Array

SIZE = 8  # of blocks

_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Table K.1 of T.81: steps of the coefficients of luminance, at quality 50."""
_CHROMINANCE = np.full((SIZE, SIZE), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Table K.2, of chrominance."""

_TO_YCC = np.array([LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)])
"""From RGB; JFIF 1.02."""
_PLACES = np.arange(SIZE)
_COSINES = np.cos(np.pi * _PLACES[:, None] * (2 * _PLACES + 1) / (2 * SIZE)) / 2
_COSINES[0] /= 2**0.5
"""The orthonormal cosine transform of 8 numbers, [frequency, place]."""


@struct.dataclass
class JPEG:
    """What is left of an image by JPEG at a quality, as libjpeg (and Pillow) write and read it.

    Rounding has the derivative 1 (straight through, Bengio et al. 2013), so that the derivative of
    the whole is the identity, but for chroma, which is smoothed.
    """

    quality: Array  # `[B]`, 1 to 100
    subsampled: bool = struct.field(pytree_node=False, default=True)  # chroma: 4:2:0, else 4:4:4

    def __call__(self, x: Array) -> Array:
        """`[B, H, W, 1 or 3] -> [B, H, W, 1 or 3]`, on [-1, 1]."""
        _, h, w, c = x.shape
        sides = [(0, -n % (2 * SIZE)) for n in (h, w)]
        levels = jnp.pad(127.5 * x - 0.5, [(0, 0), *sides, (0, 0)], mode="edge")  # -128 to 127
        if c == 1:
            coded = self._coded(levels, _LUMINANCE)
        else:
            ycc = _rounded(_mixed(levels, _TO_YCC))
            luma, chroma = self._coded(ycc[..., :1], _LUMINANCE), ycc[..., 1:]
            low = _rounded(downsample(chroma)) if self.subsampled else chroma
            # Linear interpolation is libjpeg's "fancy upsampling".
            chroma = jax.image.resize(self._coded(low, _CHROMINANCE), chroma.shape, "linear")
            coded = _mixed(jnp.concatenate([luma, chroma], -1), np.linalg.inv(_TO_YCC))
        return jnp.clip((coded[:, :h, :w] + 0.5) / 127.5, -1, 1)

    def _coded(self, levels: Array, table: np.ndarray) -> Array:
        """Channels `[B, H, W, C]`, with coefficients rounded to multiples of a table's steps."""
        b, h, w, c = levels.shape
        blocks = levels.reshape(b, h // SIZE, SIZE, w // SIZE, SIZE, c)
        steps = self._steps(table).astype(levels.dtype)[:, None, :, None, :, None]
        coefficients = _rounded(_transformed(blocks, _COSINES) / steps) * steps
        return _transformed(coefficients, _COSINES.T).reshape(levels.shape)

    def _steps(self, table: np.ndarray) -> Array:
        """The table at the quality, `[B, 8, 8]`, as scaled by libjpeg (`jpeg_quality_scaling`)."""
        quality = self.quality[:, None, None]
        scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
        return jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255)


def _mixed(x: Array, matrix: np.ndarray) -> Array:
    return jnp.einsum("oi,...i->...o", matrix.astype(x.dtype), x, precision="highest")


def _transformed(blocks: Array, matrix: np.ndarray) -> Array:
    """A matrix applied to both sides of blocks `[B, H, 8, W, 8, C]`."""
    m = matrix.astype(blocks.dtype)
    return jnp.einsum("fi,bhiwjc,gj->bhfwgc", m, blocks, m, precision="highest")


def _rounded(x: Array) -> Array:
    return x + jax.lax.stop_gradient(jnp.round(x) - x)
