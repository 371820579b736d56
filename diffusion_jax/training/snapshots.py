"""Power-function averages stored in training, from which any length is made afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.ema import (
    PARAMETERS,
    Average,
    PostHoc,
    Power,
    post_hoc_weights,
    too_young,
)
from diffusion_jax.training.optimizer import evaluation_params
from diffusion_jax.training.state import TrainState
from diffusion_jax.types import Array, Params

POOR = 0.1  # largest error of a profile that is not warned of


class Snapshots:
    """Those `averages` of the state that are power functions, stored by training steps taken."""

    def __init__(self, folder: Path, averages: Mapping[str, Average]) -> None:
        self._checkpoints = Checkpoints(folder, None)
        self._averages = averages
        self._lengths = {n: a.length for n, a in averages.items() if isinstance(a, Power)}

    def save(self, step: int, state: TrainState) -> None:
        self._checkpoints.save(step, self._stored(state), {})
        self._checkpoints.wait()  # so that a later checkpoint has all snapshots before it

    def unfit(self, name: str, step: int) -> list[str]:
        """What makes an average a bad one to sample from at a step, in sentences."""
        found = too_young({n: a for n, a in self._averages.items() if n == name}, step)
        steps, combination = self.plan(name, step)
        if combination is not None and combination.error > POOR:
            found.append(
                f"EMA length {name} is poorly met by averages of {len(steps)} steps: its profile "
                f"is {combination.error:.0%} off. Train with a smaller ema.snapshot_every, or with "
                "a length nearer to it among ema.lengths"
            )
        return found

    def passport(self, name: str, step: int) -> dict[str, Any]:
        """What a figure measured with a length says of it."""
        combination = self.plan(name, step)[1]
        error = 0.0 if combination is None else combination.error
        return {"ema": self.describe(name), "length": float(name), "profile_error": error}

    def describe(self, name: str) -> str:
        """What samples were drawn with, in words: `name` as in `average`."""
        if name == PARAMETERS:
            return "none"
        return str(self._averages.get(name, f"length {name}, post-hoc"))

    def plan(self, name: str, step: int) -> tuple[list[int], PostHoc | None]:
        """Steps of the averages that are combined, and how; no combination if it is tracked."""
        if name == PARAMETERS or name in self._averages:
            return [step], None
        steps = [*(s for s in self._checkpoints.steps() if s < step), step]
        return steps, post_hoc_weights(float(name), step, list(self._lengths.values()), steps)

    def average(self, state: TrainState, name: str) -> Params:
        """Parameters of a name: `PARAMETERS`, that of a tracked average, or any length.

        A length that is not tracked is made of the snapshots before the state's step and of the
        state's own averages. Its arrays lie as those of the state do.

        Raises:
            CheckpointError: a snapshot cannot be read.
        """
        steps, combination = self.plan(name, int(state.step))
        if combination is None:
            trained = name == PARAMETERS
            return evaluation_params(state.opt_state, state.params) if trained else state.ema[name]
        own = self._stored(state)
        total = None
        for step, row in zip(steps, combination.weights, strict=True):
            stored = own if step == steps[-1] else self._checkpoints.restore(own, step)[0]
            for key, weight in zip(self._lengths, row, strict=True):
                total = _add(total, weight, stored[key])
        return total

    def _stored(self, state: TrainState) -> dict[str, Params]:
        return {name: state.ema[name] for name in self._lengths}


@jax.jit
def _add(total: Params | None, weight: Array, params: Params) -> Params:
    """`total + weight params`; None is nothing yet."""
    part = jax.tree.map(lambda a: weight * a, params)
    return part if total is None else jax.tree.map(jnp.add, total, part)
