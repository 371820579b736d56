"""Between items `x` and the `x_0` that is diffused."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from diffusion_jax.types import Array, Params


class Codec(Protocol):
    """A space to diffuse in."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # of `x_0`
    @property
    def limit(self) -> float | None: ...  # largest absolute value of an entry of `x_0`, or None
    @property
    def levels(self) -> int: ...  # of an entry of `x_0`, evenly over [-1, 1]; 0 if continuous

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """`x_0` `[B, *shape]` of items `x` `[B, ...]`, with one key for each of `keys` `[B]`."""

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Items `x` `[B, ...]` of `x_0` `[B, *shape]`."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """`x_0` is `x`: a `Codec` with the shape, the limit and the levels of the data."""

    shape: tuple[int, ...]
    limit: float | None = None
    levels: int = 0

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        return x

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        return x_0
