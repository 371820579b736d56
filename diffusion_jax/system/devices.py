"""The devices of all processes as one: what lies where, and which process speaks and writes."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from diffusion_jax.system.progress import stage

AXIS = "devices"


class DevicesError(RuntimeError):
    """JAX cannot use the devices that it was told to."""


def check_devices() -> None:
    """Raises a DevicesError, with what there is, if JAX cannot start."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # by an assertion where CUDA is not installed
        asked = jax.config.jax_platforms
        why = str(error).partition("\n")[0].partition(" (set JAX_PLATFORMS")[0] or "not installed"
        there = "none"
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_platforms", "")
            there = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        wanted = f"JAX_PLATFORMS={asked}" if asked else "JAX"
        raise DevicesError(f"{wanted} cannot be used: {why}; there is: {there}") from error


def is_main() -> bool:
    """Whether this is the one process that prints and writes reports."""
    return jax.process_index() == 0


def all_devices() -> Mesh:
    """The devices of all processes, in a row."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(array: Any, sharding: Sharding) -> Any:
    """An array that is the same in all processes, laid out as `sharding` says."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if isinstance(array, jax.Array):
        if array.sharding.is_equivalent_to(sharding, array.ndim):
            return array
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(array), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def mesh_of(tree: Any) -> Mesh:
    """The mesh of all devices over which arrays of `tree` lie, if any do; else a row of them."""
    for leaf in jax.tree.leaves(tree):
        mesh = getattr(getattr(leaf, "sharding", None), "mesh", None)
        if isinstance(mesh, Mesh) and mesh.size == jax.device_count():
            return mesh
    return all_devices()


def lies_over(array: Any, mesh: Mesh) -> bool:
    """Whether an array lies on the devices of `mesh`, whole or in parts."""
    return isinstance(array, jax.Array) and array.sharding.device_set == set(mesh.devices.flat)


def gather(tree: Any) -> Any:
    """Every array of `tree` as a NumPy array, whole, in all processes."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def in_batches(
    program: Callable[[Any, Any], Any],
    whole: Any,
    each: Any,
    batch_size: int,
    doing: str,
    group: int = 1,
) -> Any:
    """`program(whole, each)` in batches split over the devices of all processes.

    Args:
        program: jitted; gives a tree of `[B, ...]`.
        whole: tree of what all batches need; what is cut over all devices stays so.
        each: tree of `[N, ...]`, the same in all processes.
        batch_size: at most so many at once; smaller jobs are one batch.
        doing: what it does, for a `stage` of progress.
        group: batches are multiples of this, of which `N` is one too.

    Returns:
        The tree of `[N, ...]`, NumPy, in all processes.
    """
    num = len(jax.tree.leaves(each)[0])
    mesh = mesh_of(whole)
    multiple = math.lcm(mesh.size, group)
    batch_size = -(-min(batch_size, num) // multiple) * multiple
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = jax.tree.map(lambda a: a if lies_over(a, mesh) else put(a, everywhere(mesh)), whole)
    found = []
    with stage(doing, num) as progress:
        for start in range(0, num, batch_size):
            # The last batch is filled up, so that there is one shape and one program.
            rows = np.arange(start, start + batch_size) % num
            batch = jax.tree.map(lambda array, rows=rows: put(array[rows], split), each)
            # The first call compiles, and returns before all is computed.
            first = contextlib.nullcontext() if start else progress.apart("compiling")
            with first:
                outputs = program(whole, batch)
            found.append(gather(outputs))
            progress.advance(min(batch_size, num - start))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *found)
