"""The train step of a config, traced for devices that need not be present, and its cost."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from diffusion_jax.data import Dataset
from diffusion_jax.from_config import Config, Parts, build
from diffusion_jax.from_config.checks import gather_of, mesh_shape
from diffusion_jax.models.flops import count_flops, count_peak_memory, count_traffic
from diffusion_jax.models.platform import computing_on
from diffusion_jax.models.remat import REMAT
from diffusion_jax.training.parallel import ROWS, Sharded, axes_of
from diffusion_jax.training.state import TrainState, abstract_state
from diffusion_jax.types import Context

# Names of the fields of the state in reports.
PARTS = {"params": "parameters", "ema": "moving averages", "opt_state": "optimizer"}
FROZEN, REST = "frozen parameters", "the rest of the state"


def size_of(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


class _Sizes(Sharded):
    """`Sharded` over abstract devices, to compute the sizes of shards."""

    def __init__(self, data: int, fsdp: int, model: int) -> None:
        mesh: Any = AbstractMesh((data, fsdp, model), (*ROWS, "model"))
        self.mesh = mesh


@dataclasses.dataclass(frozen=True)
class Program:
    """A config on a number of devices."""

    config: Config
    dataset: Dataset  # only the shapes of its items are needed
    devices: int
    platform: str  # "cpu", "gpu" or "tpu"

    def changed(self, changes: Mapping[str, Any]) -> "Program":
        """The same config with changed settings, `{"group.key": value}`."""
        config = self.config.copy_and_resolve_references()
        config.update_from_flattened_dict(changes)
        other = dataclasses.replace(self, config=config)
        if all(key.startswith("parallel.") for key in changes) and other.rows == self.rows:
            # The same arrays with other shardings: nothing is retraced.
            other.__dict__.update(state=self.state, gradient=self.gradient)
        return other

    @functools.cached_property
    def parts(self) -> Parts:
        """All parts of the config; a ConfigError if it cannot run on these devices."""
        return build(self.config, self.dataset, self.devices)

    @functools.cached_property
    def cuts(self) -> tuple[int, int, int]:
        """Number of devices along `data`, `fsdp` and `model`."""
        return mesh_shape(self.config, self.devices)

    @property
    def rows(self) -> int:
        """Samples per microbatch on each device."""
        data, fsdp, _ = self.cuts
        return int(self.config.train.batch_size // (data * fsdp * self.config.train.accumulate))

    @property
    def policies(self) -> list[str]:
        """Rematerialisation policies of the network, from least to most recomputation."""
        return list(REMAT) if "remat" in self.config.model[self.config.model.name] else ["none"]

    @property
    def remat(self) -> str:
        """The config's rematerialisation policy."""
        return str(self.config.model[self.config.model.name].get("remat", "none"))

    @functools.cached_property
    def state(self) -> TrainState:
        """Shapes of the state."""
        parts = self.parts  # must be built before anything is traced
        return abstract_state(parts.task.shapes, parts.optimizer, parts.averages)

    @property
    def frozen(self) -> Any:
        """Shapes of the parameters that are not trained."""
        return {name: params.shapes for name, params in self.parts.task.frozen.items()}

    def batch(self, size: int) -> dict[str, Any]:
        """Shapes of a batch of `size`."""

        def shaped(shape: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *shape), dtype)

        x = shaped(self.parts.kind.shape, self.parts.kind.stored)
        cond = {name: shaped(a.shape[1:], a.dtype) for name, a in self.parts.task.cond.items()}
        return {"x": x, "cond": cond, "index": shaped((), np.int32)}

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(math.prod(a.shape) for a in jax.tree.leaves(self.state.params))

    @functools.cached_property
    def forward_flops(self) -> int:
        """FLOPs of the network for one item."""
        task = self.parts.task
        params = jax.eval_shape(task.whole, self.state.params, self.frozen)
        # As on a TPU, since products inside fused kernels cannot be counted.
        with computing_on("tpu"):
            return count_flops(lambda params: task.apply(params, *task.inputs), params)

    @property
    def encoding_flops(self) -> int:
        """FLOPs of the encoder for one item, if latents are computed before training."""
        kind, cached = self.dataset.kind, self.parts.task.cached
        x = jax.ShapeDtypeStruct((1, *kind.shape), np.float32)
        with computing_on("tpu"):
            return count_flops(cached.moments, self.frozen, x) if cached else 0

    @functools.cached_property
    def gradient(self) -> tuple[int, int, int]:
        """FLOPs, memory traffic and peak memory (bytes) of the gradient of `rows` samples."""
        key = jax.eval_shape(jax.random.key, 0)
        context = Context(key, self.state.step, self.state.ema, self.frozen)
        args = self.state.params, self.batch(self.rows), context

        def gradient(params: Any, batch: Any, context: Context) -> Any:
            return jax.grad(lambda p: self.parts.loss(p, batch, context)[0].mean())(params)

        with computing_on("tpu"):
            flops, traffic = count_flops(gradient, *args), count_traffic(gradient, *args)
        with computing_on(self.platform):
            return flops, traffic, count_peak_memory(gradient, *args)

    @functools.cached_property
    def step_flops(self) -> int:
        """FLOPs of a step over the whole batch, including recomputation."""
        return self.gradient[0] * (self.config.train.batch_size // self.rows)

    @functools.cached_property
    def model_flops(self) -> int:
        """FLOPs of a step without recomputation, the basis of utilisation (PaLM, App. B)."""
        if self.remat == "none":
            return self.step_flops
        return self.changed({f"model.{self.config.model.name}.remat": "none"}).step_flops

    def bytes_of(self, tree: Any) -> int:
        """Bytes per device of a tree whose names are those of the state."""
        shardings = _Sizes(*self.cuts).shardings(tree)
        return size_of(
            jax.tree.map(lambda a, s: a.update(shape=s.shard_shape(a.shape)), tree, shardings)
        )

    @functools.cached_property
    def memory(self) -> dict[str, int]:
        """Estimated bytes per device by part, without compilation; the total is their sum."""
        found = dict.fromkeys((*PARTS.values(), REST), 0)
        for name, value in self.state._asdict().items():
            found[PARTS.get(name, REST)] += self.bytes_of({name: value})
        if self.parts.task.frozen:
            found[FROZEN] = self.bytes_of({"frozen": self.frozen})
        whole = size_of(self.state.params)
        found["gradients"] = found[PARTS["params"]] * (2 if self.config.train.accumulate > 1 else 1)
        found["activations"] = max(self.gradient[2] - whole, 0)
        found["parameters as computed with"] = self._copy_bytes(whole)
        found["batch"] = size_of(self.batch(self.rows * self.config.train.accumulate))
        return found

    def _copy_bytes(self, whole: int) -> int:
        """Bytes of the copy of all parameters that XLA makes before the loop over the blocks.

        In half precision, unless counted with the activations (without remat); or gathered.
        """
        _, fsdp, model = self.cuts
        if self.config.model.dtype == "float32":
            return whole // model if fsdp > 1 else 0
        return whole // 2 // model if self.remat != "none" else 0

    @property
    def traffic(self) -> int:
        """Memory traffic of each device in a step, in bytes."""
        _, _, model = self.cuts
        return self.gradient[1] * self.config.train.accumulate // model + self.state_traffic

    @property
    def state_traffic(self) -> int:
        """The part of the memory traffic that reads and writes the state and gradients, once."""
        held = self.memory
        return 2 * (sum(held[name] for name in PARTS.values()) + held["gradients"])

    @property
    def is_sharded(self) -> bool:
        """Whether the step is one program for a mesh, as it is compiled ahead of time."""
        return bool(self.config.parallel.strategy == "sharded")

    @property
    def gather(self) -> str:
        """How often parameters that are cut are gathered; see `Sharded`."""
        return gather_of(self.config)

    @property
    def mesh(self) -> dict[str, int]:
        """Number of devices along each axis of the mesh."""
        return dict(zip((*ROWS, "model"), self.cuts, strict=True))

    @property
    def undivided(self) -> dict[tuple[str, int], int]:
        """Bytes of parameters with an axis that is not cut, by mesh axis and size of theirs."""
        found: dict[tuple[str, int], int] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.state.params):
            for axis, size in zip(axes_of(path, leaf, self.mesh), leaf.shape, strict=True):
                if axis and size % self.mesh[axis]:
                    found[axis, size] = found.get((axis, size), 0) + size_of(leaf)
        return found

    @property
    def sent(self) -> str:
        """Dtype of what is sent: on a mesh the compute dtype, else as configured or float32."""
        whole = self.config.parallel.gradients or "float32"
        return str(self.config.model.dtype if self.is_sharded else whole)

    @property
    def exchanged(self) -> int:
        """Bytes sent by each device in a step, with rings.

        Gradients are summed over `data`. With `fsdp`, parameters are gathered in the forward and in
        the backward pass and gradients scattered, each once per microbatch, or parameters gathered
        once per step; frozen parameters are gathered in the forward pass only. Communication of
        activations over `model` is omitted. All of it is of the dtype `sent`.
        """
        (data, fsdp, model), micros = self.cuts, self.config.train.accumulate
        part = np.dtype(self.sent).itemsize / 4
        whole, frozen = (size_of(a) * part // model for a in (self.state.params, self.frozen))
        times = 1 + micros if self.gather == "step" else 3 * micros
        gathered = (times * whole + micros * frozen) * (fsdp - 1) / fsdp
        return int(gathered + 2 * whole / fsdp * (data - 1) / data)

    def arguments(self, parallel: Sharded) -> tuple[Any, ...]:
        """Shapes of the step's arguments, with shardings over the devices of `parallel`."""

        def laid(tree: Any, shardings: Any) -> Any:
            return jax.tree.map(lambda a, s: a.update(sharding=s), tree, shardings)

        rows = NamedSharding(parallel.mesh, PartitionSpec(ROWS))
        key = jax.eval_shape(jax.random.key, 0)
        size: int = self.config.train.batch_size
        return (
            laid(self.state, parallel.shardings(self.state)),
            jax.tree.map(lambda a: a.update(sharding=rows), self.batch(size)),
            key.update(sharding=NamedSharding(parallel.mesh, PartitionSpec())),
            laid(self.frozen, parallel.shardings(self.frozen)),
        )
