"""Decay of photographs, drawn from keys: damage, changes of tone and blur, at a severity.

Each kind is a function of a batch, `(x [B, H, W, C], keys [B], severity [B], window) ->
DecayedImage`, for one or three channels on [-1, 1] and any size. A sample depends on its own
picture, key and severity; severity 0 leaves it as it is, to the bit, and 1 is the worst.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.restoration import damage
from diffusion_jax.restoration.linear import Fading, GaussianBlur
from diffusion_jax.restoration.textures import Page, field, ink, laid, page
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Key


class DecayedImage(NamedTuple):
    """A decayed photograph."""

    image: Array  # `[B, H, W, C]`
    destroyed: Array  # `[B, H, W, 1]`, 1 where damage changed a pixel; 0: at most tone and blur did


class Window(NamedTuple):
    """The part of a photograph that an image is: decay is as large as the photograph."""

    zoom: Array | float = 1  # `[B]`, sides of the photograph over those of the image
    place: Array | float = 0  # `[B, 2]`, of the image in it, down and right, from 0 to 1


WHOLE = Window()


class Kind(Protocol):
    """A kind of decay."""

    def __call__(
        self, x: Array, keys: Array, severity: Array, window: Window = WHOLE
    ) -> DecayedImage:
        """Decayed images `[B, H, W, C]`."""


def random_fading(keys: Array, severity: Array, channels: int) -> Fading:
    """Contrast shrinks towards a pale yellow, most in red: the cyan dye is the least stable.

    For `keys` and `severity` `[B]`, of images with `channels`.
    """

    def drawn(key: Key, severity: Array) -> tuple[Array, Array]:
        lost_key, colour_key = jax.random.split(key)
        common, *each = jax.random.uniform(lost_key, (4,))
        rate = 0.35 + 0.25 * common + jnp.array([0.15, 0.08, 0.0]) + 0.05 * jnp.stack(each)
        lost = severity * (rate if channels == 3 else rate.mean()) * jnp.ones(channels)
        colour = jnp.array([0.86, 0.74, 0.52]) + 0.06 * jax.random.normal(colour_key, (3,))
        return 1 - lost, lost * jnp.clip(ink(colour, channels), -1, 1)

    gain, offset = jax.vmap(drawn)(keys, severity)
    return Fading(gain[:, None, None], offset[:, None, None])


def random_blur(keys: Array, severity: Array, side: Array | float) -> GaussianBlur:
    """A Gaussian blur of photographs whose shorter side has `side` pixels, for `keys` `[B]`."""
    share = 0.5 + 0.5 * jax.vmap(jax.random.uniform)(keys)
    return GaussianBlur(0.01 * side * severity * share)


def faded(x: Array, keys: Array, severity: Array, window: Window = WHOLE) -> DecayedImage:
    """By `random_fading`."""
    return _where_severe(random_fading(keys, severity, x.shape[-1])(x), x, severity)


def blurred(x: Array, keys: Array, severity: Array, window: Window = WHOLE) -> DecayedImage:
    """By `random_blur`."""
    made = random_blur(keys, severity, min(x.shape[1:3]) * window.zoom)(x)
    return _where_severe(jnp.clip(made, -1, 1), x, severity)


def silvered(x: Array, keys: Array, severity: Array, window: Window = WHOLE) -> DecayedImage:
    """A bluish mirror sheen in the dark parts, strongest near the edges (silver mirroring)."""

    def one(x: Array, key: Key, severity: Array, on: Page) -> Array:
        inside = jnp.min(jnp.minimum(on.at, on.size - on.at), -1)
        where = 0.9 * jnp.exp(-inside / 0.15) + 0.25 * field(key, on, 0.15) + 0.35 * severity - 0.1
        dark = jnp.clip(0.2 - x.mean(-1), 0, 1)
        sheen = severity * jnp.clip(where, 0, 0.9) * dark
        bright = 0.7 + 0.08 * jnp.sin(5 * on.at.sum(-1, keepdims=True))
        return laid(x, bright * jnp.array([0.88, 0.97, 1.12]), sheen)

    return _where_severe(jax.vmap(one)(x, keys, severity, _pages(x, window)), x, severity)


def _pages(x: Array, window: Window) -> Page:
    """The page of each image."""
    zoom = jnp.broadcast_to(jnp.asarray(window.zoom), len(x))
    place = jnp.broadcast_to(jnp.asarray(window.place), (len(x), 2))
    height, width = x.shape[1:3]
    return jax.vmap(lambda *window: page(height, width, *window))(zoom, place)


def _damaged(draw: Callable[[Array, Key, Array, Page], damage.Drawn]) -> Kind:
    """A kind of `damage` for batches."""

    def made(x: Array, keys: Array, severity: Array, window: Window = WHOLE) -> DecayedImage:
        image, cover = jax.vmap(draw)(x, keys, severity, _pages(x, window))
        return _where_severe(jnp.clip(image, -1, 1), x, severity, cover[..., None] > 0)

    return made


def _where_severe(
    image: Array, x: Array, severity: Array, destroyed: Array | bool = False
) -> DecayedImage:
    there = per_sample(severity, x) > 0
    mask = jnp.broadcast_to(there & destroyed, (*x.shape[:-1], 1)).astype(x.dtype)
    return DecayedImage(jnp.where(there, image, x), mask)


KINDS: dict[str, Kind] = {
    "blur": blurred,
    "fading": faded,
    "silvering": silvered,
    "foxing": _damaged(damage.foxing),
    "mould": _damaged(damage.mould),
    "creases": _damaged(damage.creases),
    "scratches": _damaged(damage.scratches),
    "burns": _damaged(damage.burns),
    "tears": _damaged(damage.tears),
    "dust": _damaged(damage.dust),
}
"""By name, in the order in which they happen to a photograph: dust lies on all the rest."""


@dataclasses.dataclass(frozen=True)
@checked(severity="[0, 1]", zoom="[1, inf)")
class Decay:
    """Any of the kinds together, each present in half of the samples, at a severity of its own."""

    severity: float | Array  # the most of any kind; `[B]` for a severity of each sample
    kinds: tuple[str, ...] = tuple(KINDS)
    # the images are windows at random places of photographs so many times as high and wide; `[B]`
    # for one of each sample
    zoom: float | Array = 1

    def __call__(self, x: Array, keys: Array) -> DecayedImage:
        """From images `[B, H, W, C]` and `keys` `[B]`."""
        unknown = set(self.kinds) - set(KINDS)
        if unknown:
            raise ValueError(f"kinds={self.kinds} must be some of {', '.join(KINDS)}")
        destroyed = jnp.zeros((*x.shape[:-1], 1), x.dtype)
        place = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(fold_in(keys, len(KINDS)))
        window = Window(self.zoom, place)
        for number, (name, kind) in enumerate(KINDS.items()):
            if name in self.kinds:
                both = jax.vmap(jax.random.split, out_axes=1)(fold_in(keys, number))
                share = jnp.maximum(2 * jax.vmap(jax.random.uniform)(both[0]) - 1, 0)
                x, mask = kind(x, both[1], self.severity * share, window)
                destroyed = jnp.maximum(destroyed, mask)
        return DecayedImage(x, destroyed)


@dataclasses.dataclass(frozen=True)
@checked(severity="(0, 1]", zoom="[1, inf)")
class RandomDecay:
    """Any of the kinds together, at a severity and a scale that are drawn for each sample."""

    severity: float = 1.0  # the largest; uniform from 0
    zoom: float = 1.0  # the largest `Decay.zoom`; its logarithm is uniform from 0
    kinds: tuple[str, ...] = tuple(KINDS)

    def __call__(self, x: Array, keys: Array) -> DecayedImage:
        """From images `[B, H, W, C]` and `keys` `[B]`."""
        own, rest = jax.vmap(jax.random.split, out_axes=1)(keys)
        severity, zoom = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(own).T
        return Decay(self.severity * severity, self.kinds, self.zoom**zoom)(x, rest)
