"""Non-linear operators: gamma, clipping, halftone; JPEG has a file of its own."""

import jax.numpy as jnp
from flax import struct

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.types import Array

TOE = 2.0**-10
"""On [0, 1]; below it `Gamma` is linear, since a power's slope at 0 is 0 or infinite."""
ANGLES = {1: (45.0,), 3: (15.0, 75.0, 0.0)}
"""Of halftone screens, in degrees, by number of channels (cyan, magenta and yellow in print)."""


@struct.dataclass
class Gamma:
    """`y = x^exponent` on the scale [0, 1]; a line through 0 below `TOE`."""

    exponent: Array  # `[B]`, > 0; less than 1 brightens

    def __call__(self, x: Array) -> Array:
        exponent, unit = per_sample(self.exponent, x), (x + 1) / 2
        power = jnp.maximum(unit, TOE) ** exponent
        return 2 * jnp.where(unit > TOE, power, TOE ** (exponent - 1) * unit) - 1


@struct.dataclass
class Clipping:
    """`y = min(max(x, low), high)`: an overdriven recording; with `Fading` inside, overexposure."""

    low: Array  # `[B]`
    high: Array  # `[B]`, > low

    def __call__(self, x: Array) -> Array:
        return jnp.clip(x, per_sample(self.low, x), per_sample(self.high, x))


@struct.dataclass
class Halftone:
    """Print with dots of one ink per channel: white where `x` is above a screen, else black.

    The screen is the sum `s` of two triangle waves at right angles (diamond dots); `s - s |s| / 4`
    is uniform on [-1, 1], and so an even area has as much white as its tone says. Edges of dots are
    `tanh((x - screen) / softness)`, which is what can be differentiated, and the blur of real ink.
    """

    period: Array  # `[B]`, distance of dots in pixels
    softness: Array  # `[B]`, > 0; near 0 there is only black and white

    def __call__(self, x: Array) -> Array:
        """`[B, H, W, 1 or 3] -> [B, H, W, 1 or 3]`."""
        return jnp.tanh((x - self._screen(x)) / per_sample(self.softness, x))

    def _screen(self, x: Array) -> Array:
        down, right = jnp.meshgrid(
            *(jnp.arange(n, dtype=x.dtype) for n in x.shape[1:3]), indexing="ij"
        )
        angles = jnp.deg2rad(jnp.asarray(ANGLES[x.shape[-1]], x.dtype))
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        down, right = down[..., None], right[..., None]
        period = per_sample(self.period, x)
        s = _triangle((cos * down + sin * right) / period)
        s = s + _triangle((cos * right - sin * down) / period)
        return s - s * jnp.abs(s) / 4


def _triangle(phase: Array) -> Array:
    """A wave of period 1 between -1 and 1."""
    return 4 * jnp.abs(phase - jnp.floor(phase) - 0.5) - 1
