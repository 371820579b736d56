"""A network whose outputs are gains of its inputs."""

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.layers import Dtype
from diffusion_jax.types import Array, Cond

QUIET = 0.01
"""Absolute value from which levels are logarithms; the data have about 1."""


class Gains(nn.Module):
    """`y = r + g x_t + h c` with the outputs `r`, `g` and `h` of `network`, entry by entry.

    `c` are the first C channels of the signal beside a sample, `cond["image"]`. Spectra of sound
    are thus filtered, and need not be written anew: masks of Williamson, Wang & Wang (2016), with
    `r` beside them. Levels `level(x_t)` and `level(c)` are further inputs.
    """

    network: nn.Module  # a `Network` with `2 C` outputs, or `3 C` where there is a `c`
    beside: bool  # whether there is

    @property
    def dtype(self) -> Dtype:
        """That of the network."""
        return self.network.dtype

    @nn.compact
    def __call__(self, x_t: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See `layers.Network`: [B, ..., C] and [B] -> [B, ..., C]."""
        channels, signals = x_t.shape[-1], [x_t]
        if self.beside and "image" in cond:
            image = cond["image"].astype(x_t.dtype)
            signals.append(image[..., :channels])
            cond = {**cond, "image": with_level(image)}
        added, *gains = jnp.split(
            self.network(with_level(x_t), t, cond, train=train), 2 + self.beside, axis=-1
        )
        return added + sum(g * x for g, x in zip(gains, signals, strict=False))


def with_level(x: Array) -> Array:
    """`x` [B, ..., C] and its level `log(1 + (x / QUIET)^2) / 4`, 0 for 0: [B, ..., 2C]."""
    return jnp.concatenate([x, jnp.log1p((x / QUIET) ** 2) / 4], axis=-1)
