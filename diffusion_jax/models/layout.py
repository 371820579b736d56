"""Sharding of activations when parameters are sharded over devices."""

from contextlib import AbstractContextManager
from contextvars import ContextVar

import jax
from jax.sharding import Sharding

from diffusion_jax.models.platform import set_while
from diffusion_jax.types import Array

_ROWS: ContextVar[Sharding | None] = ContextVar("rows", default=None)


def rows_over(sharding: Sharding) -> AbstractContextManager[None]:
    """Context: functions traced inside work on batches sharded by samples as in `sharding`."""
    return set_while(_ROWS, sharding)


def keep_rows(x: Array) -> Array:
    """Constrains `x` [B, ...] to stay sharded by samples; no effect outside of `rows_over`.

    With sharded parameters XLA may gather them, or instead shard the features of the activations
    and gather those. The constraint between a network's blocks keeps it from gathering activations.
    """
    sharding = _ROWS.get()
    return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)
