"""Codecs between data items `x` and the diffused `x_0`."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from diffusion_jax.types import Array, Params


class Codec(Protocol):
    """A mapping of data items to the space of diffusion and back."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # of `x_0`
    @property
    def limit(self) -> float | None: ...  # largest absolute value in `x_0`, or None
    @property
    def levels(self) -> int: ...  # number of values of an entry, evenly in [-1, 1]; 0: continuous

    # mean square of an entry of `x_0`, if it is known; None: that of encoded data
    @property
    def second_moment(self) -> float | None: ...
    @property
    def words(self) -> str: ...  # of the space, for a log; '' where a round trip is not measured
    @property
    def log_scale(self) -> float: ...  # mean of `ln |d x_0 / d x|` over the entries; 0 if none

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """`x_0` `[B, *shape]` from items `x` `[B, ...]`, with one key per item, `keys` `[B]`."""

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Items `x` `[B, ...]` from `x_0` `[B, *shape]`."""


@runtime_checkable
class Resizable(Codec, Protocol):
    """A codec without parameters, for items of any size."""

    def resized(self, shape: tuple[int, ...]) -> "Resizable":
        """The same for items of another shape."""


@runtime_checkable
class Orthonormal(Resizable, Protocol):
    """One of sounds: `x_0 = gains * (Q x)` of x filled up by zeros, Q an orthonormal matrix."""

    @property
    def length(self) -> int: ...  # samples T of an item
    @property
    def gains(self) -> np.ndarray: ...  # above 0, broadcastable to `x_0`
    @property
    def filled(self) -> "Orthonormal": ...  # the same for items that need no zeros


@dataclasses.dataclass(frozen=True)
class Identity:
    """`x_0` is `x`: a `Codec` with the shape, the limit and the levels of the data."""

    shape: tuple[int, ...]
    limit: float | None = None
    levels: int = 0
    second_moment: float | None = None
    words: str = ""
    log_scale: float = 0.0

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        return x

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        return x_0

    def resized(self, shape: tuple[int, ...]) -> "Identity":
        """The same for items of another shape."""
        return dataclasses.replace(self, shape=shape)
