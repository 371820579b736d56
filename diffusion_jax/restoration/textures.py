"""Shapes of decay: random fields, fractal lines, strokes and spots, drawn on one picture.

Lengths are shares of the shorter side, so that a patch and a photograph decay alike. A cover `[H,
W]` in [0, 1] is the share of each pixel that is covered, and exactly 0 outside of the shape.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.types import Array, Key

KNOTS = 256  # of a fractal line


class Page(NamedTuple):
    """Where the pixels of a picture are."""

    at: Array  # `[H, W, 2]`, down and right of the upper left corner
    size: Array  # `[2]`, height and width
    pixels: Array | float  # of the shorter side, whose length is 1

    def cover(self, inside: Array, most: Array | float = 1.0) -> Array:
        """Cover of a shape from the distance to its edge, > 0 inside; `most`: of thin shapes."""
        return jnp.clip(inside * self.pixels + 0.5, 0, most)

    def line(self, across: Array, half: Array) -> Array:
        """Cover of a line of half width `half`, from the distance to its middle."""
        return self.cover(half - jnp.abs(across), jnp.clip(2 * half * self.pixels, 0, 1))


def page(height: int, width: int, zoom: Array | float = 1, place: Array | float = 0) -> Page:
    """The page of a picture, or of a window of one that is `zoom` times as high and wide.

    `place` `[2]` is that of the window, down and right, from 0 to 1.
    """
    pixels, sides = min(height, width) * zoom, jnp.array([height, width])
    down, right = np.mgrid[:height, :width] + 0.5
    at = np.stack([down, right], -1).astype(np.float32)
    at = jax.lax.optimization_barrier(jnp.asarray(at))  # else XLA computes with it to compile
    return Page((at + place * (zoom - 1) * sides) / pixels, sides * zoom / pixels, pixels)


def field(key: Key, on: Page, size: float, slope: float = 2.0) -> Array:
    """A Gaussian field `[H, W]` of mean 0 and variance 1, even above a `size`, rough below.

    Its power falls like `frequency^(-2 slope)` above `1 / size`.
    """
    height, width = on.at.shape[:2]
    down = jnp.fft.fftfreq(height)[:, None] * on.pixels
    right = jnp.fft.rfftfreq(width) * on.pixels
    # Frequencies that the pixels cannot show count for the variance, so that it is that of `field`
    # on a finer grid.
    gain = (1 + (down**2 + right**2) * size**2) ** (-slope / 2)
    noise = jax.random.normal(key, (height, width))
    made = jnp.fft.irfft2(jnp.fft.rfft2(noise, norm="ortho") * gain, (height, width), norm="ortho")
    return made / (jnp.pi / (slope - 1)) ** 0.5 * size * on.pixels


def wander(key: Key, along: Array, roughness: float = 1.0) -> Array:
    """A fractal line, at positions of period 2 along it: a random walk's bridge for roughness 1.

    Amplitudes of its waves fall like `frequency^-roughness`; its variance is 1.
    """
    frequency = jnp.arange(1, KNOTS // 2)
    amplitude = frequency ** (-roughness)
    phases = jax.random.normal(key, (2, len(frequency))) * amplitude
    waves = jnp.concatenate([jnp.zeros((2, 1)), phases], 1)
    line = jnp.fft.irfft(waves[0] + 1j * waves[1], KNOTS, norm="forward")
    line = line / (2 * jnp.sum(amplitude**2) ** 0.5)
    place = along / 2 * KNOTS
    low = jnp.floor(place)
    first = low.astype(int) % KNOTS
    return line[first] + (place - low) * (line[(first + 1) % KNOTS] - line[first])


def across(on: Page, start: Array, angle: Array) -> tuple[Array, Array]:
    """Coordinates along and across the line from a point at an angle, 0 is down; each `[H, W]`."""
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    turned = jnp.stack([-direction[1], direction[0]])
    away = on.at - start
    return away @ direction, away @ turned


def from_edge(key: Key, on: Page, spread: float) -> tuple[Array, Array]:
    """A point on the edge of the page, and an angle inwards, up to `spread` off the normal."""
    side_key, place_key, angle_key = jax.random.split(key, 3)
    side = jax.random.randint(side_key, (), 0, 4)
    down, right = on.size * jax.random.uniform(place_key, (2,))
    zero = jnp.zeros(())
    corners = jnp.stack([zero, right, on.size[0], right, down, zero, down, on.size[1]])
    normal = jnp.array([0, jnp.pi, jnp.pi / 2, -jnp.pi / 2])[side]
    off = jax.random.uniform(angle_key, minval=-spread, maxval=spread)
    return corners.reshape(4, 2)[side], normal + off


def ink(colour: Array | tuple[float, ...], channels: int) -> Array:
    """A colour, RGB `[..., 3]` on [0, 1], on [-1, 1]; its mean if there are no three channels."""
    rgb = 2 * jnp.asarray(colour) - 1
    return rgb if channels == 3 else jnp.mean(rgb, -1, keepdims=True)


def laid(x: Array, colour: Array | tuple[float, ...], cover: Array) -> Array:
    """An opaque colour over `x` `[H, W, C]`."""
    return x + cover[..., None] * (ink(colour, x.shape[-1]) - x)


def stained(x: Array, colour: Array | tuple[float, ...], cover: Array) -> Array:
    """A transparent colour over `x` `[H, W, C]`, which is multiplied by it on [0, 1]."""
    lost = 1 - (ink(colour, x.shape[-1]) + 1) / 2
    return x - cover[..., None] * lost * (x + 1)
