"""How activations lie where the parameters are cut over devices."""

from contextlib import AbstractContextManager
from contextvars import ContextVar

import jax
from jax.sharding import Sharding

from diffusion_jax.models.platform import set_while
from diffusion_jax.types import Array

_ROWS: ContextVar[Sharding | None] = ContextVar("rows", default=None)


def rows_over(sharding: Sharding) -> AbstractContextManager[None]:
    """What is traced inside works on batches whose samples are cut as `sharding` says."""
    return set_while(_ROWS, sharding)


def keep_rows(x: Array) -> Array:
    """`x` [B, ...], whose samples stay where they are; as it is outside of `rows_over`.

    Where a parameter is cut XLA may either gather it, or cut the features of the activations as it
    is cut, and gather these. Held between the blocks of a network, they never travel whole.
    """
    sharding = _ROWS.get()
    return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)
