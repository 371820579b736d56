"""The devices of all processes: meshes, sharding of arrays, and which process prints."""

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
    """JAX cannot use the requested devices."""


def check_devices() -> None:
    """Raises a DevicesError, which names the available devices, if JAX cannot start."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # an assertion if CUDA is not installed
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
    """The devices of all processes, as a mesh of one axis."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Sharding with a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(array: Any, sharding: Sharding) -> Any:
    """Shards an array that is the same in all processes."""
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
    """The mesh of all devices over which arrays of `tree` are sharded; else `all_devices`."""
    for leaf in jax.tree.leaves(tree):
        mesh = getattr(getattr(leaf, "sharding", None), "mesh", None)
        if isinstance(mesh, Mesh) and mesh.size == jax.device_count():
            return mesh
    return all_devices()


def lies_over(array: Any, mesh: Mesh) -> bool:
    """Whether an array is on the devices of `mesh`, replicated or sharded."""
    return isinstance(array, jax.Array) and array.sharding.device_set == set(mesh.devices.flat)


def on_devices(tree: Any) -> Any:
    """The arrays of a tree on all devices: a copy on each of those that do not lie there yet."""
    mesh = mesh_of(tree)
    return jax.tree.map(lambda a: a if lies_over(a, mesh) else put(a, everywhere(mesh)), tree)


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
    """`program(whole, each)` in batches sharded over the devices of all processes.

    Args:
        program: jitted; returns a tree of `[B, ...]`.
        whole: tree of inputs of all batches; arrays sharded over all devices stay so.
        each: tree of `[N, ...]`, the same in all processes.
        batch_size: maximum per batch; smaller jobs are one batch.
        doing: name of the `stage` of progress.
        group: batch sizes are multiples of this; so is `N`.

    Returns:
        The tree of `[N, ...]`, NumPy, in all processes.
    """
    num = len(jax.tree.leaves(each)[0])
    mesh = mesh_of(whole)
    multiple = math.lcm(mesh.size, group)
    batch_size = -(-min(batch_size, num) // multiple) * multiple
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = on_devices(whole)
    found = []
    with stage(doing, num) as progress:
        for start in range(0, num, batch_size):
            # The last batch is filled up, so that one compiled program serves all.
            rows = np.arange(start, start + batch_size) % num
            batch = jax.tree.map(lambda array, rows=rows: put(array[rows], split), each)
            # The first call compiles, and returns before its results are computed.
            first = contextlib.nullcontext() if start else progress.apart("compiling")
            with first:
                outputs = program(whole, batch)
            found.append(gather(outputs))
            progress.advance(min(batch_size, num - start))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *found)
