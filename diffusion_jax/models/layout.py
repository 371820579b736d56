"""Sharding of activations, and of whole parameters, when parameters are sharded over devices."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from diffusion_jax.models.platform import set_while
from diffusion_jax.types import Array, Params

Shardings = Callable[[Any], Any]
"""Of a tree of parameters, the tree of their `NamedSharding`."""
_ROWS: ContextVar[Sharding | None] = ContextVar("rows", default=None)
_CUT: ContextVar[Shardings | None] = ContextVar("cut", default=None)
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


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


def alone() -> AbstractContextManager[None]:
    """Context: functions traced inside are the program of one device, which is not partitioned."""
    return set_while(_ALONE, True)


def of_each_device(f: Callable[..., Array]) -> Callable[..., Array] | None:
    """`f` of arrays [B, L, H, D], samples and heads apart, as a program of each device.

    For kernels, which XLA cannot partition. None where it is not known how arrays are sharded:
    outside of `alone` and `rows_over`.
    """
    if _ALONE.get():
        return f
    sharding = _ROWS.get()
    if not isinstance(sharding, NamedSharding):
        return None
    mesh, rows = sharding.mesh, sharding.spec[0]

    def mapped(*arrays: Array) -> Array:
        cut = all(a.shape[2] % mesh.shape.get("model", 1) == 0 for a in arrays)
        spec = PartitionSpec(rows, None, "model" if cut and "model" in mesh.shape else None)
        found: Array = jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(
            *arrays
        )
        return found

    return mapped


def gathered_once(shardings: Shardings) -> AbstractContextManager[None]:
    """Context: functions traced inside gather parameters, which are cut by `shardings`, once."""
    return set_while(_CUT, shardings)


def gathered(params: Params) -> Params:
    """Parameters that are whole on all devices that share samples out; see `gathered_once`.

    XLA casts them before it sends them, if they are used in half precision.
    """
    if (shardings := _CUT.get()) is None:
        return params

    def whole(cut: NamedSharding) -> NamedSharding:
        return cut.update(spec=PartitionSpec(*(a if a == "model" else None for a in cut.spec)))

    return jax.lax.with_sharding_constraint(params, jax.tree.map(whole, shardings(params)))


def scattered(grads: Params) -> Params:
    """The gradient with respect to `gathered` parameters, cut as these were."""
    shardings = _CUT.get()
    return jax.lax.with_sharding_constraint(grads, shardings(grads)) if shardings else grads


def one_by_one(f: Callable[[Array], Array], x: Array) -> Array:
    """`f` of a batch `x` [B, ...], for one item at a time on each device.

    Slower than all at once, but the rounding of an item does not depend on its place in the batch.
    """
    sharding, shards = _ROWS.get(), 1
    if sharding is not None:
        size = sharding.num_devices
        shards = size // sharding.shard_shape((size,))[0]
    # The loop is over the items of a device, and each of its steps over all devices.
    parts = x.reshape(shards, -1, *x.shape[1:]).swapaxes(0, 1)
    found = jax.lax.map(lambda x: f(keep_rows(x)), parts)
    return keep_rows(found.swapaxes(0, 1).reshape(len(x), *found.shape[2:]))
