"""Latents of an autoencoder as the space of diffusion (Rombach et al. 2022, section 3)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.layout import one_by_one
from diffusion_jax.models.tiles import in_tiles
from diffusion_jax.types import Array, Params

CODEC = "codec"
"""Name of the autoencoder's parameters among those that are not trained."""
OVERLAP = 0.25
"""Share of a tile that it has in common with its neighbour, at least."""


@dataclasses.dataclass(frozen=True)
class Latents:
    """`x_0 = scale (z - mean)` with `z` drawn from the encoder's law: a `Codec`."""

    network: Autoencoder
    shape: tuple[int, ...]  # of `x_0`
    # so that `x_0` has variance 1; a number, or one for each channel
    scale: float | tuple[float, ...]
    mean: float | tuple[float, ...] = 0.0  # of `z`, likewise
    limit: None = None
    levels: int = 0
    second_moment: float = 1.0
    words: str = ""
    log_scale: float = 0.0  # figures are of the latents
    tile: int = 0  # latents along each axis that are decoded at once; 0: all

    @property
    def moments_shape(self) -> tuple[int, ...]:
        """The shape of the moments of one item."""
        return *self.shape[:-1], 2 * self.shape[-1]

    def moments(self, frozen: Mapping[str, Params], x: Array) -> Array:
        """The law of the latents of `x` `[B, ...]`, not scaled: `[B, *moments_shape]`.

        Means of the C channels, then log-variances.
        """
        found: Any = self.network.apply({"params": frozen[CODEC]}, x, method="encode")
        return jnp.concatenate(found, axis=-1)

    def drawn(self, moments: Array, keys: Array) -> Array:
        """Latents `[B, *shape]` of these moments, each drawn with its own key."""
        mean, logvar = jnp.split(moments, 2, axis=-1)
        z = mean + jnp.exp(0.5 * logvar) * sample_noise(keys, self.shape)
        return jnp.asarray(self.scale) * (z - jnp.asarray(self.mean))

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """Latents `[B, *shape]` of `x` `[B, ...]`, each drawn with its own key."""
        return self.drawn(self.moments(frozen, x), keys)

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Samples `[B, ...]` of latents `[B, *shape]`.

        In tiles they are not quite the same, as a norm or an attention of the decoder sees one tile
        only.
        """

        def decoded(z: Array) -> Array:
            found: Any = self.network.apply({"params": frozen[CODEC]}, z, method="decode")
            return found

        z = x_0 / jnp.asarray(self.scale) + jnp.asarray(self.mean)
        if not self.tile:
            return decoded(z)
        overlap, factor = int(OVERLAP * self.tile), self.network.factor
        x: Array = in_tiles(decoded, z, self.tile, overlap, factor=factor)
        return x


class OneByOne(Latents):
    """The same, with a rounding that does not depend on an item's place in its batch.

    So what is encoded in a training step has the same bits as what was encoded before.
    """

    def moments(self, frozen: Mapping[str, Params], x: Array) -> Array:
        """As of `Latents`, of one item at a time on each device."""
        moments = one_by_one(functools.partial(super().moments, frozen), x)
        return jax.lax.optimization_barrier(moments)  # a loop of one item could be fused


class FromMoments(OneByOne):
    """The same space, of items of which the moments are stored in place of `x`."""

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """Latents `[B, *shape]` of moments `x` `[B, *moments_shape]`; nothing is encoded."""
        return self.drawn(x, keys)
