"""Checkpoints: Orbax, asynchronous, of everything that training carries, with checksums.

A checkpoint counts as saved once its manifest is written: after Orbax has renamed its folder from
the temporary name to that of the step, and before an older checkpoint is removed for it. In an
object store nothing is renamed: all files have their final names at once, and the manifest alone
says that they are complete.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, EveryNSteps, LatestN

from diffusion_jax.system.files import (
    in_store,
    local_copy,
    path_of,
    remove_tree,
    temporary_folder,
)
from diffusion_jax.training.manifest import MANIFEST, find_damage, write_manifest

METRIC = "heldout/loss"  # what `keep_best` goes by; less is better


class CheckpointError(ValueError):
    """A checkpoint that was asked for is not there or damaged, or one could not be written."""


class _Sealed:
    """Of a temporary path of Orbax's: the folder has a manifest once it is all there."""

    async def finalize(self) -> None:
        await super().finalize()  # type: ignore[misc]
        folder = path_of(self.get_final())  # type: ignore[attr-defined]
        if folder.name.isdigit():  # the parts in it pass through here too
            write_manifest(folder)


class _Renamed(_Sealed, ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A folder on a disk: renamed at the end."""


class _Written(_Sealed, ocp.path.atomicity.CommitFileTemporaryPath):
    """A folder in a store that TensorStore writes to: at its final place from the start."""


class _Staged(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A folder in another store: written on this machine, and copied there at the end."""

    @classmethod
    def from_final(cls, final_path: Any, **options: Any) -> Any:
        found = super().from_final(final_path, **options)
        if in_store(final_path):  # not a part, whose place is here already
            found._holder = temporary_folder()
            found._tmp_path = epath.Path(found._holder.name) / found._tmp_path.name
        return found

    async def finalize(self) -> None:
        final = self.get_final()
        if not in_store(final):
            await super().finalize()
            return
        self._final_path = self.get().parent / final.name
        await super().finalize()
        final.upload(Path(self._final_path))
        self._final_path = final
        self._holder.cleanup()


class _Uploaded(_Sealed, _Staged):
    """Such a folder, with a manifest."""


class _Manager(ocp.CheckpointManager):
    """Leaves it to the loop to ask whether the processes are to stop: JAX counts the questions."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of a run, by the number of training steps taken.

    With several processes all of them must make the same calls. Only reads its folder until `open`
    or the first `save`, so that one process can sample what another one trains.

    Args:
        folder: of all checkpoints of the run.
        keep_last: so many of the newest are kept; None: all.
        keep_every: those of steps divisible by it are kept for ever; 0: none.
        keep_best: so many with the least `METRIC` are kept besides, of those that have one.
    """

    def __init__(
        self, folder: Path, keep_last: int | None = 3, keep_every: int = 0, keep_best: int = 0
    ) -> None:
        self._folder = folder.absolute()
        every = [EveryNSteps(keep_every)] if keep_every else []
        best = BestN(  # sorted in reverse, the least is the best
            get_metric_fn=_loss, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False
        )
        self._policies = [LatestN(keep_last), *every, best]
        # TensorStore writes to Google's store, and Orbax knows no other.
        self._direct = not in_store(folder) or str(folder).startswith("gs://")
        written = _Written if in_store(folder) else _Renamed
        self._temporary_path = written if self._direct else _Uploaded
        self._begun: set[int] = set()
        self._damage: dict[int, str | None] = {}
        self._told: set[int] = set()

    @functools.cached_property
    def _manager(self) -> _Manager:
        """Its making removes what was not finished or is damaged."""
        if jax.process_index() == 0 and self._folder.exists():
            for path in list(self._folder.iterdir()):
                # At once, as a full disk wants it; Orbax would do it in the background.
                if path.name.endswith(ocp.path.atomicity_types.TMP_DIR_SUFFIX):
                    remove_tree(path)
                elif path.name.isdigit() and not (path / MANIFEST).exists():
                    _say(f"checkpoint of step {path.name} was not finished (no manifest): removed")
                    remove_tree(path)
            for step, damage in self._damage.items():
                if damage:
                    remove_tree(self._folder / str(step), missing_ok=True)
        self._damage = {step: None for step, damage in self._damage.items() if not damage}
        _drop_late_failures()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(self._policies),
            best_fn=_loss,  # only with it are metrics written
            temporary_path_class=self._temporary_path,
            enable_async_checkpointing=True,
        )
        return _Manager(self._folder, options=options)

    def open(self) -> None:
        """Makes ready for saving: removes what was not finished, and what is known to be damaged.

        Raises a CheckpointError if the folder cannot be written.
        """
        if jax.process_count() > 1 and not self._direct:
            raise CheckpointError(
                f"several processes cannot write checkpoints to {self._folder}: give a --workdir "
                "on a disk that all of them see, or on gs://"
            )
        with self._errors("no checkpoint can be written"):
            if not self._direct:
                temporary_folder().cleanup()  # there is a place for them on this machine
            self._manager.reload()

    def steps(self) -> list[int]:
        """Steps saved, in order; whether they are sound is seen when they are used."""
        found = self._folder.glob(f"*/{MANIFEST}")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())

    def latest(self) -> int | None:
        """Newest step whose files are what was written, None if none was saved.

        Says in one line which newer ones are damaged; `open` removes these.

        Raises:
            CheckpointError: there are checkpoints, but all are damaged.
        """
        bad: dict[int, str] = {}
        for step in reversed(self.steps()):
            if damage := self._find_damage(step):
                bad[step] = damage
                continue
            for other in bad.keys() - self._told:
                wrong = f"checkpoint of step {other} is damaged (file {bad[other]})"
                _say(f"{wrong}: going on from step {step}")
            self._told |= bad.keys()
            return step
        if bad:
            which = ", ".join(f"{file} of step {step}" for step, file in bad.items())
            raise CheckpointError(
                f"no checkpoint in {self._folder} is sound (damaged: {which}); to train from the "
                "start, delete that folder"
            )
        return None

    def save(
        self, step: int, state: Any, data_state: dict[str, Any], metrics: Mapping[str, float] = {}
    ) -> None:
        """Starts to save a pytree of arrays and the data iterator's state.

        A no-op if that step is saved already, or being saved.

        Args:
            step: training steps taken.
            state: of any structure; it is copied before this returns.
            data_state: what can be written as JSON.
            metrics: what was measured; `METRIC` decides on `keep_best`.

        Raises:
            CheckpointError: this one, or the one before, could not be written.
        """
        self.wait()
        if step in self._begun:
            return
        with self._errors(f"the checkpoint of step {step} could not be written"):
            if step in self._manager.all_steps():
                if self._find_damage(step) is None:
                    return
                self._manager.delete(step)
                del self._damage[step]
            items = ocp.args.Composite(
                # Within something, as Orbax would not take an array alone.
                state=ocp.args.StandardSave([state]),
                data=ocp.args.JsonSave(data_state),
            )
            measured = dict(metrics) if METRIC in metrics else None
            self._manager.save(step, args=items, metrics=measured, force=True)
            self._begun.add(step)

    def restore(self, template: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """State and data state at `step` (None: the newest sound one), shaped like `template`.

        Args:
            template: pytree of arrays or `jax.ShapeDtypeStruct`s. An array comes back with its
                `sharding`, whatever it was saved with; on one device where there is none.
            step: no other one is taken in its place.

        Raises:
            CheckpointError: there is none, or not that one, or it is damaged or shaped otherwise.
        """
        step, steps = self.latest() if step is None else step, self.steps()
        if step not in steps:
            there = f"there are {', '.join(map(str, steps))}" if steps else "there is none yet"
            asked = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{asked} in {self._folder}: {there}")
        if damage := self._find_damage(step):
            where = f"checkpoint of step {step} in {self._folder}"
            raise CheckpointError(f"{where} is damaged (file {damage})")
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore([jax.tree.map(_placed, template)]),
            data=ocp.args.JsonRestore(),
        )
        folder = self._folder / str(step)
        with (
            contextlib.nullcontext(folder) if self._direct else local_copy(folder) as here,
            ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader,
        ):
            self._check_shapes(here, step, template)
            restored = reader.restore(here, args=items)
        (state,) = restored["state"]
        return state, restored["data"]

    def _check_shapes(self, folder: Path, step: int, template: Any) -> None:
        """Raises a CheckpointError where those of the checkpoint in `folder` are others."""
        saved = _shapes(ocp.StandardCheckpointHandler().metadata(folder / "state").tree)
        asked = _shapes([template])
        for name in dict.fromkeys((*asked, *saved)):
            if saved.get(name) != asked.get(name):
                raise CheckpointError(
                    f"checkpoint of step {step} in {self._folder} is of another network or "
                    f"optimizer: {name} is {saved.get(name, 'not there')}, and here "
                    f"{asked.get(name, 'there is none')}"
                )

    def check(self) -> None:
        """Raises the CheckpointError of a write that has failed meanwhile; waits for none."""
        if self._begun and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for what is still being written; a CheckpointError if it could not be."""
        if self._begun:
            with self._errors(f"the checkpoint of step {max(self._begun)} could not be written"):
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Whatever Orbax and TensorStore raise, as one line."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            reason = os.strerror(int(code[1])) if code else getattr(error, "strerror", None)
            reason = reason or str(error).partition("\n")[0]
            saved = ", ".join(map(str, self.steps()))
            left = f"those of the steps {saved} stay" if saved else "none was saved before"
            raise CheckpointError(f"{what} in {self._folder}: {reason}; {left}") from error

    def _find_damage(self, step: int) -> str | None:
        """A damaged file of that checkpoint, looked for once, and by one process for all."""
        if step not in self._damage:
            damage = find_damage(self._folder / str(step)) if jax.process_index() == 0 else None
            if jax.process_count() > 1:
                anything = multihost_utils.broadcast_one_to_all(np.bool_(damage is not None))
                damage = damage or (MANIFEST if anything else None)
            self._damage[step] = damage
        return self._damage[step]


def _loss(metrics: Mapping[str, float]) -> float:
    """The metric, or worse than any: NaN has no order."""
    loss = metrics.get(METRIC, np.inf)
    return float(np.nan_to_num(loss, nan=np.inf, posinf=np.inf))


def _shapes(tree: Any) -> dict[str, str]:
    """Of `[tree]` the shape of each leaf in words, by its name; of a key that of its data."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")

    def shape(leaf: Any) -> tuple[int, ...]:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        return tuple(leaf.shape)

    return {name(path[1:]): f"of shape {shape(leaf)}" for path, leaf in leaves}


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, type and place of a leaf."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


@functools.cache
def _drop_late_failures() -> None:
    """Keeps Python from printing those failed writes that come after Orbax has raised the first.

    They find its event loop closed, and nobody is left to raise that to.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)
