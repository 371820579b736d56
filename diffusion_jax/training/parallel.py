"""Running a train step on several devices: replicated by pmap, or sharded over a named mesh."""

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion_jax.models.layout import alone, gathered_once, rows_over
from diffusion_jax.system.devices import AXIS, all_devices, everywhere, put
from diffusion_jax.types import Batch

ROWS = ("data", "fsdp")  # mesh axes over which the batch is sharded
# The axis of a parameter that is cut over `model`, by the first pattern that matches its name; the
# names of its optimizer state and averages end in the same name. Between a projection up and the
# one down again only one sum is communicated (Shoeybi et al. 2019, section 3).
RULES = (
    (r"/(qkv|mlp_0|conv_0|emb|time_0|modulation|modulation_out)/(kernel|bias)$", -1),
    (r"/(out|mlp_1|conv_1|time_1|skip)/kernel$", -2),
)
SMALL = re.compile(r"/(bias|scale|embedding)$")
"""Parameters that are not cut over `fsdp`: they would not be worth the exchange."""


def axes_of(path: Any, leaf: Any, mesh: Mapping[str, int]) -> tuple[str | None, ...]:
    """Axes of a mesh of these sizes over which the axes of an array in a tree are cut.

    Over `model` by `RULES`; over `fsdp` the larger one of the last two that are left, of those that
    it divides: cut finely it fills the tiles of a TPU better. An axis that is not divided by that
    of the mesh stays whole.
    """
    name = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
    axes: list[str | None] = [None] * leaf.ndim
    cut = next((axis for pattern, axis in RULES if re.search(pattern, name)), None)
    if cut is not None and leaf.ndim >= -cut and mesh["model"] > 1:
        axes[cut] = "model"
    left = [axis for axis in range(leaf.ndim)[-2:] if not axes[axis]]
    if left and not SMALL.search(name):
        size = leaf.shape
        axes[max(left, key=lambda axis: (size[axis] % mesh["fsdp"] == 0, size[axis]))] = "fsdp"
    return tuple(axes)


class Replicated:
    """Every device has all parameters and a part of the batch.

    The state is one array per parameter, with a copy on every device: pmap maps the batch alone. On
    one device the step is only jitted: pmap would add a copy of the state to every step, a sixth of
    the time of a small network's step on a CPU.

    Attributes:
        axis_name: mapped axis over which a step averages gradients; None on one device.
        share: (index, number) of this process's share of every batch.
    """

    def __init__(self) -> None:
        self._devices = jax.local_devices()
        self.axis_name = AXIS if jax.device_count() > 1 else None
        self.share = jax.process_index(), jax.process_count()

    def shardings(self, tree: Any) -> Any:
        """Shardings for making or restoring every array: replicated."""
        target = everywhere(all_devices())
        return jax.tree.map(lambda _: target, tree)

    def compile(self, step: Any) -> Any:
        """`(state, batch, key, frozen) -> (state, metrics)` over devices; the state is donated."""

        def own(*args: Any) -> Any:
            with alone():
                return step(*args)

        if self.axis_name is None:
            return jax.jit(own, donate_argnums=0)
        mapped, whole = (None, 0, None, None), (None, None)
        return jax.pmap(own, self.axis_name, in_axes=mapped, out_axes=whole, donate_argnums=0)

    def place(self, tree: Any, donated: bool = True) -> Any:
        """`tree` on each device; arrays that are there already are not copied.

        On one device they are copied if they will be `donated`.
        """
        if self.axis_name is None:
            return jax.device_put(tree, self._devices[0], may_alias=not donated)
        return jax.tree.map(put, tree, self.shardings(tree))

    def fetch(self, tree: Any) -> Any:
        """As `Sharded.fetch`; of several processes, which pmap gives arrays of their own."""
        if self.share[1] > 1:
            tree = jax.tree.map(_of_all_processes, tree)
        return as_it_is(tree, self._devices[0].platform)

    def read(self, metrics: Any) -> Any:
        """Metrics as NumPy arrays."""
        return jax.device_get(metrics)

    def split(self, batch: Batch) -> Batch:
        """Splits this process's share `[B, ...]` of a batch over its devices.

        Adds each sample's position in the global batch as `index`.
        """
        batch = with_index(batch, self.share[0])
        if self.axis_name is None:
            return batch
        n = len(self._devices)
        return jax.tree.map(lambda a: np.reshape(a, (n, -1, *np.shape(a)[1:])), batch)


class Sharded:
    """Parameters, optimizer state and averages are sharded over the devices, as is the batch.

    The program is that of one device; XLA partitions it by the shardings of its arguments. With
    `fsdp` and `model` both 1 every device has all parameters.

    Args:
        fsdp: devices over which the state is sharded, and parameters gathered for use (ZeRO-3,
            Rajbhandari et al. 2020); the batch is sharded over them too.
        model: devices over which parameters and activations are sharded, with the same samples.
        devices: those of all processes by default; a topology's can be compiled for.
        gather: "use": parameters are gathered again for each use; "step": once in a step, so that
            they are whole until the gradient is there (ZeRO-2): more memory, and less is sent.

    Attributes:
        axis_name: None: the step averages over whole batches.
        mesh: with axes `data`, `fsdp`, `model`; `data` has the remaining devices.
        share: as for `Replicated`; processes whose devices share samples have the same.
    """

    axis_name = None

    def __init__(
        self,
        fsdp: int,
        model: int,
        devices: Sequence[Any] | None = None,
        gather: str = "use",
    ) -> None:
        devices = jax.devices() if devices is None else devices
        shape = (len(devices) // (fsdp * model), fsdp, model)
        # A mesh axis may share a physical one with another: 16 x 16 chips allow fsdp=4.
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        self.mesh = Mesh(grid, (*ROWS, "model"))
        self._rows = NamedSharding(self.mesh, PartitionSpec(ROWS))
        self._gather = gather
        self.share = self._share()

    def _share(self) -> tuple[int, int]:
        """Shares in the order of the processes' first rows; equal rows have an equal share."""
        held: dict[int, list[int]] = {}  # row blocks by process, ascending
        for block, devices in enumerate(self.mesh.devices.reshape(-1, self.mesh.shape["model"])):
            for process in {device.process_index for device in devices}:
                held.setdefault(process, []).append(block)
        shares = sorted(map(list, {tuple(blocks) for blocks in held.values()}))
        return shares.index(held.get(jax.process_index(), held[min(held)])), len(shares)

    def shardings(self, tree: Any) -> Any:
        """Sharding of every array of `tree`, by its name."""
        mesh = self.mesh.shape

        def sharding(path: Any, leaf: Any) -> NamedSharding:
            even = (
                axis if axis and size % mesh[axis] == 0 else None
                for axis, size in zip(axes_of(path, leaf, mesh), leaf.shape, strict=True)
            )
            return NamedSharding(self.mesh, PartitionSpec(*even))

        return jax.tree_util.tree_map_with_path(sharding, tree)

    def compile(self, step: Any) -> Any:
        """`(state, batch, key, frozen) -> (state, metrics)` over the mesh; the state is donated."""

        def pinned(state: Any, batch: Batch, key: Any, frozen: Any) -> Any:
            once = gathered_once(self.shardings) if self._gather == "step" else nullcontext()
            with rows_over(self._rows), once:
                state, metrics = step(state, batch, key, frozen)
            state = jax.lax.with_sharding_constraint(state, self.shardings(state))
            return state, jax.lax.with_sharding_constraint(metrics, everywhere(self.mesh))

        return jax.jit(pinned, donate_argnums=0)

    def place(self, tree: Any, donated: bool = True) -> Any:
        """`tree` with its `shardings`; arrays that have them already are not copied."""
        return jax.tree.map(put, tree, self.shardings(tree))

    def fetch(self, tree: Any) -> Any:
        """The same arrays, to be read before they are donated.

        On a CPU copies, as what was read there would be the donated memory itself.
        """
        return as_it_is(tree, self.mesh.devices.flat[0].platform)

    def read(self, metrics: Any) -> Any:
        """Metrics as NumPy arrays."""
        return jax.device_get(metrics)

    def split(self, batch: Batch) -> Batch:
        """Makes global arrays from this process's share `[B, ...]` of a batch."""
        mine, shares = self.share

        def split_one(array: np.ndarray) -> jax.Array:
            shape = (shares * len(array), *array.shape[1:])
            held = self._rows.addressable_devices_indices_map(shape)
            starts = sorted({rows[0].start or 0 for rows in held.values() if rows})
            size = len(array) // len(starts)

            def rows(part: Any) -> np.ndarray:
                first = starts.index(part[0].start or 0) * size
                return array[first : first + size]

            return jax.make_array_from_callback(shape, self._rows, rows)

        return jax.tree.map(split_one, with_index(batch, mine))


Parallel = Replicated | Sharded


def as_it_is(tree: Any, platform: str) -> Any:
    """`tree`; a copy of it on a CPU."""
    return _copy(tree) if platform == "cpu" else tree


def _of_all_processes(array: jax.Array) -> jax.Array:
    """The array that processes have on their own devices, as one on all devices; not copied."""
    copies = [shard.data for shard in array.addressable_shards]
    target = everywhere(all_devices())
    return jax.make_array_from_single_device_arrays(array.shape, target, copies)


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def with_index(batch: Batch, share: int) -> Batch:
    """A share of a batch, with each sample's position in the global batch as `index`."""
    size = len(batch["x"])
    return {**batch, "index": np.arange(share * size, (share + 1) * size)}
