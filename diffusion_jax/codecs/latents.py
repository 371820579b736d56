"""Latents of an autoencoder as the space of diffusion (Rombach et al. 2022, section 3)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.tiles import in_tiles
from diffusion_jax.types import Array, Params

CODEC = "codec"
"""Name of the autoencoder's parameters among those that are not trained."""
OVERLAP = 0.25
"""Share of a tile that it has in common with its neighbour, at least."""


@dataclasses.dataclass(frozen=True)
class Latents:
    """`x_0 = scale z` with `z` drawn from the encoder's law: a `Codec`."""

    network: Autoencoder
    shape: tuple[int, ...]  # of `x_0`
    scale: float  # so that `x_0` has variance 1
    limit: None = None
    levels: int = 0
    tile: int = 0  # latents along each axis that are decoded at once; 0: all

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """Latents `[B, *shape]` of `x` `[B, ...]`, each drawn with its own key."""
        found: Any = self.network.apply({"params": frozen[CODEC]}, x, method="encode")
        mean, logvar = found
        x_0: Array = self.scale * (mean + jnp.exp(0.5 * logvar) * sample_noise(keys, self.shape))
        return x_0

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Samples `[B, ...]` of latents `[B, *shape]`.

        In tiles they are not quite the same, as a norm or an attention of the decoder sees one tile
        only.
        """

        def decoded(z: Array) -> Array:
            found: Any = self.network.apply({"params": frozen[CODEC]}, z, method="decode")
            return found

        z = x_0 / self.scale
        if not self.tile:
            return decoded(z)
        overlap, factor = int(OVERLAP * self.tile), self.network.factor
        x: Array = in_tiles(decoded, z, self.tile, overlap, factor=factor)
        return x
