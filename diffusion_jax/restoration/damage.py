"""Damage: decay that destroys parts of a photograph, each drawn from a key at a severity.

Functions of one picture, `(x [H, W, C], key, severity [], page) -> (picture, cover [H, W])` with a
severity in (0, 1]; `decay` has them for batches. Pixels outside of the cover are untouched.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.restoration.textures import (
    Page,
    across,
    field,
    from_edge,
    laid,
    stained,
    wander,
)
from diffusion_jax.types import Array, Key

Drawn = tuple[Array, Array]
"""The picture and the cover."""
PAPER = (0.93, 0.90, 0.84)  # the white core of a photograph's paper


def tears(x: Array, key: Key, severity: Array, on: Page) -> Drawn:
    """Fractal tears from the edges and a torn corner, with white fibre where paper split."""
    behind_key, corner_key, fibre_key, key = jax.random.split(key, 4)
    behind = jnp.where(jax.random.bernoulli(behind_key), 0.97, 0.06) * jnp.ones(3)
    paper = jnp.array(PAPER) + 0.06 * field(fibre_key, on, 0.006)[..., None]

    def torn(drawn: Drawn, missing: Array, fibre: Array, there: Array) -> Drawn:
        """Paper is missing where the distance is < 0, and its core bare on a width next to it."""
        x, cover = drawn
        bare, gone = there * on.cover(fibre - missing), there * on.cover(-missing)
        return laid(laid(x, paper, bare), behind, gone), jnp.maximum(cover, bare)

    def tear(drawn: Drawn, key: Key, strength: Array) -> Drawn:
        place_key, length_key, *keys = jax.random.split(key, 6)
        u, v = across(on, *from_edge(place_key, on, 0.5))
        length = strength * jax.random.uniform(length_key, minval=0.4, maxval=1.2)
        left = jnp.clip(1 - u / jnp.maximum(length, 1e-6), 0, 1.3)
        v = v - 0.08 * (wander(keys[0], u, 1.4) - wander(keys[0], jnp.zeros(()), 1.4))
        gap = 0.018 * strength * left * (1 + 0.5 * wander(keys[1], u, 0.8))
        rough = wander(keys[2], u, 0.8) + 0.5 * jnp.sign(v) * wander(keys[3], u, 0.5)
        fibre = left**0.5 * (0.003 + 0.012 * strength * jnp.abs(rough))
        return torn(drawn, jnp.abs(v) - gap, fibre, (left > 0) & (strength > 0))

    drawn = _repeated(tear, (x, jnp.zeros(x.shape[:2])), key, severity, 4)
    which_key, line_key, fibre_key = jax.random.split(corner_key, 3)
    corner = jax.random.bernoulli(which_key, shape=(2,)) * on.size
    inwards = jnp.sign(on.size / 2 - corner)
    u, v = across(on, corner, jnp.arctan2(inwards[1], inwards[0]))
    size = 0.4 * severity - 0.1
    missing = u - size - 0.07 * wander(line_key, v, 1.4)
    fibre = 0.004 + 0.03 * severity * jnp.abs(wander(fibre_key, v, 0.8))
    return torn(drawn, missing, fibre, size > 0)


def creases(x: Array, key: Key, severity: Array, on: Page) -> Drawn:
    """Folds: a shadow on one side, a highlight on the other, and cracks of the emulsion."""

    def crease(drawn: Drawn, key: Key, strength: Array) -> Drawn:
        x, cover = drawn
        place_key, angle_key, shape_key, crack_key, side_key = jax.random.split(key, 5)
        middle = on.size * jax.random.uniform(place_key, (2,), minval=0.15, maxval=0.85)
        turn, off = jax.random.normal(angle_key, (2,))
        u, v = across(on, middle, jnp.where(turn > 0, 0, jnp.pi / 2) + 0.15 * off)
        v = (v - 0.006 * wander(shape_key, u, 1.5)) * jax.random.rademacher(side_key, (), float)
        near = jnp.clip(1 - jnp.abs(v) / 0.03, 0, 1) * (strength > 0)
        shade = near**2 * jnp.where(v > 0, -0.5, 0.25) * strength
        worn = jnp.maximum(0.2 + wander(crack_key, 2 * u, 0.4), 0)
        crack = strength**0.5 * on.line(v, 0.004 * strength * worn)
        x = laid(jnp.clip(x + shade[..., None], -1, 1), PAPER, crack)
        return x, jnp.maximum(cover, jnp.maximum(near, crack))

    return _repeated(crease, (x, jnp.zeros(x.shape[:2])), key, severity, 4)


def scratches(x: Array, key: Key, severity: Array, on: Page) -> Drawn:
    """Thin, nearly parallel lines, mostly white: emulsion that was scraped off, here and there."""
    angle_key, key = jax.random.split(key)
    main = jax.random.uniform(angle_key, maxval=jnp.pi)

    def scratch(drawn: Drawn, key: Key, strength: Array) -> Drawn:
        angle_key, key = jax.random.split(key)
        angle = main + 0.12 * jax.random.normal(angle_key)
        return _stroke(drawn, on, key, angle, 0.7, 0.1, strength)

    return _repeated(scratch, (x, jnp.zeros(x.shape[:2])), key, severity, 24)


def dust(x: Array, key: Key, severity: Array, on: Page) -> Drawn:
    """Specks and hairs, dark or bright."""
    hair_key, edge_key, key = jax.random.split(key, 3)
    ragged = 1 + 0.3 * field(edge_key, on, 0.004)

    def speck(layer: tuple[Array, Array], key: Key, strength: Array) -> tuple[Array, Array]:
        place_key, size_key, shape_key, light_key = jax.random.split(key, 4)
        away = on.at - on.size * jax.random.uniform(place_key, (2,))
        radius = 0.0035 * jnp.exp(0.45 * jax.random.normal(size_key)) * (0.4 + strength)
        oval = jnp.eye(2) + jax.random.uniform(shape_key, (2, 2), minval=-0.5, maxval=0.5)
        # The area of a speck that is smaller than a pixel is kept.
        most = jnp.clip(jnp.pi * (radius * on.pixels) ** 2, 0, 1)
        one, other = (away[..., 0] * a + away[..., 1] * b for a, b in oval)
        inside = radius * ragged - jnp.sqrt(one**2 + other**2)
        spot = (strength > 0) * on.cover(inside, most)
        light = jnp.where(jax.random.bernoulli(light_key, 0.7), 0.92, 0.1)
        return layer[0] * (1 - spot) + spot * light, layer[1] * (1 - spot)

    def hair(drawn: Drawn, key: Key, strength: Array) -> Drawn:
        angle_key, key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
        return _stroke(drawn, on, key, angle, 0.12, 6.0, strength)

    # One grey layer of all specks, as there are many: its light and what is seen through it.
    none = jnp.zeros(x.shape[:2])
    light, clear = _repeated(speck, (none, 1 + none), key, severity, 100)
    x = x * clear[..., None] + (2 * light - (1 - clear))[..., None]
    return _repeated(hair, (x, 1 - clear), hair_key, severity, 8)


def _stroke(
    drawn: Drawn, on: Page, key: Key, angle: Array, longest: float, bend: float, strength: Array
) -> Drawn:
    """A thin arc at a random place, as long as `longest` at most, with a curvature up to `bend`."""
    x, cover = drawn
    place_key, shape_key, line_key, pressure_key = jax.random.split(key, 4)
    start = on.size * jax.random.uniform(place_key, (2,), minval=-0.2, maxval=1)
    length, width, light, curve = jax.random.uniform(shape_key, (4,))
    u, v = across(on, start, angle)
    v = v - bend * (curve - 0.5) * u**2 - 0.01 * longest * wander(line_key, u, 1.5)
    length = longest * (0.2 + 0.8 * length)
    half = (0.0005 + 0.0015 * width) * (0.4 + strength)
    pressed = jnp.clip(0.9 + 0.5 * wander(pressure_key, u * 3, 0.7), 0, 1)
    there = (strength > 0) & (u > 0) & (u < length)
    line = there * pressed * on.line(v, half)
    colour = jnp.where(light < 0.75, 0.93, 0.08) * jnp.ones(3)
    return laid(x, colour, line), jnp.maximum(cover, line)


def mould(x: Array, key: Key, severity: Array, on: Page) -> Drawn:
    """Blotches where a Gaussian field is high: eaten edges, pale and grey-green growth, specks."""
    where_key, edge_key, grain_key, colour_key = jax.random.split(key, 4)
    grain = field(grain_key, on, 0.012, 1.3)
    height = field(where_key, on, 0.12, 2.2) + 0.35 * field(edge_key, on, 0.03, 1.8)
    above = height + 0.1 * grain - (2.4 - 2 * severity)
    cover = jnp.clip(above / 0.35, 0, 1) * jnp.clip(0.8 + 0.15 * grain, 0, 1)
    pale, green = jnp.array([0.80, 0.79, 0.70]), jnp.array([0.33, 0.36, 0.27])
    share = jnp.clip(0.5 + 0.5 * grain + 0.4 * jax.random.normal(colour_key), 0, 1)
    rim = jnp.exp(-((above - 0.15) ** 2) / 0.02)  # growth is darkest at its front
    growth = pale + (jnp.maximum(share, rim)[..., None]) * (green - pale)
    return laid(x, growth, cover), cover


def foxing(x: Array, key: Key, severity: Array, on: Page) -> Drawn:
    """Rust-brown, translucent spots with darker middles, in clusters."""
    cluster_key, edge_key, key = jax.random.split(key, 3)
    clusters = on.size * jax.random.uniform(cluster_key, (6, 2))
    ragged = 1 + 0.35 * field(edge_key, on, 0.02, 1.5)

    def spot(clear: tuple[Array, Array], key: Key, strength: Array) -> tuple[Array, Array]:
        place_key, size_key, which_key = jax.random.split(key, 3)
        middle = clusters[jax.random.randint(which_key, (), 0, 6)]
        middle = middle + 0.2 * jax.random.normal(place_key, (2,))
        size, dark = jax.random.normal(size_key, (2,))
        radius = 0.014 * jnp.exp(0.7 * size) * (0.5 + strength)
        away = jnp.linalg.norm(on.at - middle, axis=-1) / radius
        depth = jnp.clip(0.7 + 0.15 * dark, 0.2, 1) * (strength > 0)
        stain = depth * jnp.clip(1.2 * ragged - away, 0, 1)
        core = 0.8 * depth * jnp.clip(1 - 3 * away, 0, 1)
        return clear[0] * (1 - stain), clear[1] * (1 - core)

    ones = jnp.ones(x.shape[:2])
    halo, core = _repeated(spot, (ones, ones), key, severity, 60)
    x = stained(stained(x, (0.62, 0.40, 0.18), 1 - halo), (0.35, 0.2, 0.1), 1 - core)
    return x, jnp.maximum(1 - halo, 1 - core)


def burns(x: Array, key: Key, severity: Array, on: Page) -> Drawn:
    """Burnt in from the edge: paper gone, a charred rim, and browning beyond it."""
    rough_key, grain_key, key = jax.random.split(key, 3)
    rough = 0.012 * field(rough_key, on, 0.05, 1.8)
    ash = 0.05 + 0.03 * field(grain_key, on, 0.01)[..., None] * jnp.ones(3)

    def burn(drawn: Drawn, key: Key, strength: Array) -> Drawn:
        x, cover = drawn
        place_key, size_key = jax.random.split(key)
        middle, _ = from_edge(place_key, on, 0.0)
        size = 0.34 * strength * jax.random.uniform(size_key, minval=0.6)
        away = jnp.linalg.norm(on.at - middle, axis=-1) + rough - size  # < 0 is gone
        there = strength > 0
        brown = there * jnp.clip(1 - away / (0.06 + 0.5 * size), 0, 1) ** 1.5
        char = there * jnp.clip(1 - away / 0.05, 0, 1)
        gone = there * on.cover(-away)
        x = stained(x, (0.45, 0.24, 0.08), brown)
        x = laid(laid(x, ash, char), (0.96, 0.96, 0.95), gone)
        return x, jnp.max(jnp.stack([cover, brown, char, gone]), 0)

    return _repeated(burn, (x, jnp.zeros(x.shape[:2])), key, severity, 3)


def _repeated(
    draw: Callable[[Any, Key, Array], Any], drawn: Any, key: Key, severity: Array, most: int
) -> Any:
    """Draws up to `most` shapes, each from a severity of its own on, ever stronger from there."""
    keys = jax.random.split(key, most)
    strengths = jnp.clip(severity - jnp.arange(most) / most, 0, 1) ** 0.7
    return jax.lax.scan(lambda d, each: (draw(d, *each), None), drawn, (keys, strengths))[0]
