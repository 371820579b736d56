"""Latents of an autoencoder as the space of diffusion (Rombach et al. 2022, section 3)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.types import Array, Params

CODEC = "codec"
"""Name of the autoencoder's parameters among those that are not trained."""


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

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """Latents `[B, *shape]` of `x` `[B, ...]`, each drawn with its own key."""
        found: Any = self.network.apply({"params": frozen[CODEC]}, x, method="encode")
        mean, logvar = found
        z = mean + jnp.exp(0.5 * logvar) * sample_noise(keys, self.shape)
        return jnp.asarray(self.scale) * (z - jnp.asarray(self.mean))

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Samples `[B, ...]` of latents `[B, *shape]`."""
        z = x_0 / jnp.asarray(self.scale) + jnp.asarray(self.mean)
        found: Any = self.network.apply({"params": frozen[CODEC]}, z, method="decode")
        x: Array = found
        return x
