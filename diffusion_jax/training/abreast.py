"""Training several seeds of one config in one program: every array has a leading axis of runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.training.each import Each
from diffusion_jax.training.loop import Action, Ready
from diffusion_jax.training.parallel import Replicated, with_index
from diffusion_jax.training.state import TrainState
from diffusion_jax.types import Batch


def stack(trees: Sequence[Any]) -> Any:
    """Stacks S trees into one tree of arrays `[S, ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def part(tree: Any, i: int) -> Any:
    """Tree number `i` of a stack."""
    return jax.tree.map(lambda a: a[i], tree)


class Abreast(Replicated):
    """Maps the train step over runs on one device, which a small network would leave idle.

    A step takes as long as one with a batch larger by the number of runs, and gives each run the
    result that it would have alone, up to the order of float sums.
    """

    def __init__(self) -> None:
        self.axis_name = None
        self.share = 0, 1
        self._devices = jax.local_devices()

    def compile(self, step: Any) -> Any:
        """`(states, batches, keys, frozen) -> (states, metrics)`; the runs share `frozen`."""
        return jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)), donate_argnums=0)

    def split(self, batch: Batch) -> Batch:
        """Batches `[S, B, ...]`, with each sample's position in its own batch."""
        runs = len(batch["x"])
        index = with_index({"x": batch["x"][0]}, 0)["index"]
        return {**batch, "index": np.broadcast_to(index, (runs, len(index)))}


class AbreastBatches(Each):
    """The batches of several runs, stacked; their iterator states are a list."""

    def __next__(self) -> Batch:
        return jax.tree.map(lambda *arrays: np.stack(arrays), *map(next, self._each))

    def describe(self, index: int) -> str:
        return "; ".join(batches.describe(index) for batches in self._each)


class AbreastCheckpoints(Each):
    """The checkpoints of several runs, with the interface that `loop.train` uses."""

    def save(
        self, step: int, states: TrainState, data_states: Sequence[Any], metrics: Mapping[str, Any]
    ) -> None:
        for i, (checkpoints, data_state) in enumerate(zip(self._each, data_states, strict=True)):
            own = {name: float(values[i]) for name, values in metrics.items()}
            checkpoints.save(step, part(states, i), data_state, own)

    def latest(self) -> int | None:
        return self._each[0].latest()


class AbreastWriter(Each):
    """Writes entry i of each metric `[S]` with writer i, and times over the number of runs."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        for i, writer in enumerate(self._each):
            own = {name: v[i] if np.ndim(v) else v for name, v in scalars.items()}
            if "train_seconds" in own:
                own["train_seconds"] /= len(self._each)
            writer.write_scalars(step, own)


def abreast(runs: Sequence[Ready]) -> Ready:
    """Combines runs into one; each action is called on each run's own state."""
    states, batches, keys, _, checkpoints, writers, frozen, actions = zip(*runs, strict=True)

    def each(*actions: Action) -> Action:
        def action(step: int, states: TrainState) -> dict[str, Any]:
            found = [own(step, part(states, i)) for i, own in enumerate(actions)]
            return {name: np.array([each[name] for each in found]) for name in found[0]}

        return action

    return Ready(
        *(stack(states), AbreastBatches(batches), stack(keys), Abreast()),
        *(AbreastCheckpoints(checkpoints), AbreastWriter(writers), frozen[0]),
        [(same[0][0], each(*(own for _, own in same))) for same in zip(*actions, strict=True)],
    )
