"""Snapshots of power-function averages, from which averages of any length are made later."""

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

POOR = 0.1  # relative error of a profile above which to warn


class Snapshots:
    """Snapshots of the power functions among `averages`, by number of training steps."""

    def __init__(self, folder: Path, averages: Mapping[str, Average]) -> None:
        self._checkpoints = Checkpoints(folder, None)
        self._averages = averages
        self._lengths = {n: a.length for n, a in averages.items() if isinstance(a, Power)}

    def save(self, step: int, state: TrainState) -> None:
        self._checkpoints.save(step, self._stored(state), {})
        self._checkpoints.wait()  # so that a later checkpoint has all snapshots before it

    def unfit(self, name: str, step: int) -> list[str]:
        """Warnings about sampling from an average at a step."""
        found = too_young({n: a for n, a in self._averages.items() if n == name}, step)
        steps, combination = self.plan(name, step)
        if combination is not None and combination.error > POOR:
            found.append(
                f"EMA length {name} is poorly approximated from averages of {len(steps)} steps: "
                f"its profile is off by {combination.error:.0%}. Train with a smaller "
                "ema.snapshot_every, or with a closer length among ema.lengths"
            )
        return found

    def passport(self, name: str, step: int) -> dict[str, Any]:
        """Passport entries of a figure measured with a length."""
        combination = self.plan(name, step)[1]
        error = 0.0 if combination is None else combination.error
        return {"ema": self.describe(name), "length": float(name), "profile_error": error}

    def describe(self, name: str) -> str:
        """Description of an average for reports; `name` as in `average`."""
        if name == PARAMETERS:
            return "none"
        return str(self._averages.get(name, f"length {name}, post-hoc"))

    def plan(self, name: str, step: int) -> tuple[list[int], PostHoc | None]:
        """Steps and weights of the averages to combine; None instead of weights if tracked."""
        if name == PARAMETERS or name in self._averages:
            return [step], None
        steps = [*(s for s in self._checkpoints.steps() if s < step), step]
        return steps, post_hoc_weights(float(name), step, list(self._lengths.values()), steps)

    def average(self, state: TrainState, name: str) -> Params:
        """Parameters by name: `PARAMETERS`, a tracked average, or any length.

        A length that is not tracked is combined from the snapshots before the state's step and the
        state's own averages. Its arrays have the same sharding as the state's.

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
    """`total + weight params`; None counts as 0."""
    part = jax.tree.map(lambda a: weight * a, params)
    return part if total is None else jax.tree.map(jnp.add, total, part)
