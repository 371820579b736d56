"""Checkpoints: Orbax, asynchronous, of everything that training carries."""

import functools
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class CheckpointError(ValueError):
    """A checkpoint that was asked for is not there."""


class Checkpoints:
    """The checkpoints of a run, by the number of training steps taken."""

    def __init__(self, folder: Path, max_to_keep: int | None = 3) -> None:
        self._folder, self._max_to_keep = folder, max_to_keep

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._max_to_keep, enable_async_checkpointing=True
        )
        return ocp.CheckpointManager(self._folder.absolute(), options=options)

    def steps(self) -> list[int]:
        """Steps saved, in order; asking makes no folder."""
        return sorted(self._manager.all_steps()) if self._folder.exists() else []

    def save(self, step: int, state: Any, data_state: dict[str, Any]) -> None:
        """Starts to save an unreplicated state and the data iterator's; a no-op if it is there."""
        if step not in self.steps():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_state)
            )
            self._manager.save(step, args=items)

    def latest(self) -> int | None:
        """Newest step saved, None if there is none."""
        return max(self.steps(), default=None)

    def restore(self, template: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """State and data state at `step` (None: the newest), shaped like `template`.

        Raises:
            CheckpointError: there is none, or not that one.
        """
        steps = self.steps()
        step = steps[-1] if step is None and steps else step
        if step not in steps:
            there = f"there are {', '.join(map(str, steps))}" if steps else "there is none yet"
            asked = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{asked} in {self._folder}: {there}")
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(shapes), data=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["data"]

    def wait(self) -> None:
        """Waits for what is still being written."""
        if self._folder.exists():
            self._manager.wait_until_finished()
