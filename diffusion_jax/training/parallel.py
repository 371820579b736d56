"""How a train step runs over the devices: replicated and pmapped, or sharded over a named mesh."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion_jax.models.layout import rows_over
from diffusion_jax.system.devices import AXIS, all_devices, everywhere, put
from diffusion_jax.types import Batch

ROWS = ("data", "fsdp")  # axes of the mesh over which the batch is cut
# How the last axes of a parameter are cut, by the first pattern in its name, with which the names
# of its arrays in optimizer and averages end. An axis that cannot be cut evenly stays whole.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Into a wider space, and out of it again: the products between need no communication over
    # `model` but one sum (Shoeybi et al. 2019, section 3).
    (r"/(qkv|mlp_0|conv_0|emb|time_0|modulation|modulation_out)/kernel$", ("fsdp", "model")),
    (r"/(out|mlp_1|conv_1|time_1|skip)/kernel$", ("model", "fsdp")),
    (r"/(qkv|mlp_0|conv_0|emb|time_0|modulation|modulation_out)/bias$", ("model",)),
    (r"/(bias|scale|embedding)$", (None,)),  # small, and wanted whole
    (r"", (None, "fsdp")),
)


class Replicated:
    """Every device has all parameters and its part of the batch.

    On one device the step is jitted as it is: a pmap there would add a copy of the state to every
    step, a sixth of the time of a small network's step on a CPU.

    Attributes:
        axis_name: what a step averages gradients over; None on one device.
        share: which of how many shares of every batch this process reads.
    """

    def __init__(self) -> None:
        self._devices = jax.local_devices()
        self.axis_name = AXIS if jax.device_count() > 1 else None
        self.share = jax.process_index(), jax.process_count()

    def shardings(self, tree: Any) -> Any:
        """Where one copy of every array of `tree` is made or restored: everywhere."""
        target = everywhere(all_devices())
        return jax.tree.map(lambda _: target, tree)

    def compile(self, step: Any) -> Any:
        """`(state, batch, key, frozen) -> (state, metrics)` over devices; the state is donated."""
        if self.axis_name is None:
            return jax.jit(step, donate_argnums=0)
        return jax.pmap(step, axis_name=self.axis_name, donate_argnums=0)

    def place(self, tree: Any, donated: bool = True) -> Any:
        """A copy of every array on each device, from one that this process has whole.

        Sharded as `jax.pmap` returns its results: else the step would compile twice. On one device
        arrays that are there already and will not be `donated` are not copied.
        """
        if self.axis_name is None:
            return jax.device_put(tree, self._devices[0], may_alias=not donated)
        n = len(self._devices)
        sharding = NamedSharding(Mesh(np.array(self._devices), (AXIS,)), PartitionSpec(AXIS))

        def place_one(array: Any) -> jax.Array:
            one = array.addressable_data(0) if isinstance(array, jax.Array) else array
            return jax.device_put(jnp.broadcast_to(one, (n, *one.shape)), sharding)

        return jax.tree.map(place_one, tree)

    def fetch(self, tree: Any) -> Any:
        """One copy of everything, which outlives the donation of what it was taken from."""
        if self.axis_name is None:
            return _copy(tree)

        def fetch_one(array: jax.Array) -> jax.Array:
            copies = [shard.data[0] for shard in array.addressable_shards]
            target = everywhere(all_devices())
            return jax.make_array_from_single_device_arrays(copies[0].shape, target, copies)

        return jax.tree.map(fetch_one, tree)

    def read(self, metrics: Any) -> Any:
        """Metrics as NumPy; the same on all devices."""
        metrics = jax.device_get(metrics)
        return metrics if self.axis_name is None else jax.tree.map(lambda a: a[0], metrics)

    def split(self, batch: Batch) -> Batch:
        """A share `[B, ...]` of a batch, this process's, cut for its devices.

        Each sample's place in the whole batch is added as `index`.
        """
        batch = with_index(batch, self.share[0])
        if self.axis_name is None:
            return batch
        n = len(self._devices)
        return jax.tree.map(lambda a: np.reshape(a, (n, -1, *np.shape(a)[1:])), batch)


class Sharded:
    """Parameters, optimizer and averages are cut over the devices, as is the batch.

    The program is that of one device; XLA cuts it by where its arguments lie. With `fsdp` and
    `model` both 1 every device has all parameters.

    Args:
        fsdp: devices over which parameters are cut, and gathered where they are used (ZeRO-3,
            Rajbhandari et al. 2020); the batch is cut over them too.
        model: devices over which parameters and activations are cut, sharing their samples.
        devices: all of the processes' by default; those of a topology can be compiled for.

    Attributes:
        axis_name: None: the step takes its means over whole batches.
        mesh: with axes `data`, `fsdp`, `model`; `data` has the devices that are left.
        share: as for `Replicated`; processes whose devices share samples have the same.
    """

    axis_name = None

    def __init__(self, fsdp: int, model: int, devices: Sequence[Any] | None = None) -> None:
        devices = jax.devices() if devices is None else devices
        shape = (len(devices) // (fsdp * model), fsdp, model)
        # An axis of a slice may be shared by two of the mesh: 16 x 16 chips hold fsdp=4.
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        self.mesh = Mesh(grid, (*ROWS, "model"))
        self._rows = NamedSharding(self.mesh, PartitionSpec(ROWS))
        self.share = self._share()

    def _share(self) -> tuple[int, int]:
        """Processes in the order of the first rows that they hold; equal rows, equal share."""
        held: dict[int, list[int]] = {}  # blocks of rows by process, ascending
        for block, devices in enumerate(self.mesh.devices.reshape(-1, self.mesh.shape["model"])):
            for process in {device.process_index for device in devices}:
                held.setdefault(process, []).append(block)
        shares = sorted(map(list, {tuple(blocks) for blocks in held.values()}))
        return shares.index(held.get(jax.process_index(), held[min(held)])), len(shares)

    def shardings(self, tree: Any) -> Any:
        """Where every array of `tree` lies, by `RULES`."""

        def sharding(path: Any, leaf: Any) -> NamedSharding:
            name = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
            axes = next(axes for pattern, axes in RULES if re.search(pattern, name))
            axes = (*[None] * leaf.ndim, *axes)[len(axes) :]  # for the last axes; others stay whole
            even = (
                axis if axis and size % self.mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, leaf.shape, strict=True)
            )
            return NamedSharding(self.mesh, PartitionSpec(*even))

        return jax.tree_util.tree_map_with_path(sharding, tree)

    def compile(self, step: Any) -> Any:
        """`(state, batch, key, frozen) -> (state, metrics)` over the mesh; the state is donated."""

        def pinned(state: Any, batch: Batch, key: Any, frozen: Any) -> Any:
            with rows_over(self._rows):
                state, metrics = step(state, batch, key, frozen)
            state = jax.lax.with_sharding_constraint(state, self.shardings(state))
            return state, jax.lax.with_sharding_constraint(metrics, everywhere(self.mesh))

        return jax.jit(pinned, donate_argnums=0)

    def place(self, tree: Any, donated: bool = True) -> Any:
        """`tree` laid out as `shardings` says; what lies so already is not copied."""
        return jax.tree.map(put, tree, self.shardings(tree))

    def fetch(self, tree: Any) -> Any:
        """The same arrays; on a CPU copies, where what reads them reads the donated memory."""
        cpu = self.mesh.devices.flat[0].platform == "cpu"
        return _copy(tree) if cpu else tree

    def read(self, metrics: Any) -> Any:
        """Metrics as NumPy."""
        return jax.device_get(metrics)

    def split(self, batch: Batch) -> Batch:
        """A share `[B, ...]` of a batch, this process's, as its part of the mesh's arrays."""
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


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def with_index(batch: Batch, share: int) -> Batch:
    """A share of a batch, with each sample's place in the whole batch as `index`."""
    size = len(batch["x"])
    return {**batch, "index": np.arange(share * size, (share + 1) * size)}
