"""Checkpoints: asynchronous, by Orbax, of the whole training state, with checksums.

A checkpoint is complete once its manifest is written: after Orbax has renamed its folder from the
temporary name to that of the step, and before an older checkpoint is deleted in its favour. In an
object store nothing is renamed: files have their final names from the start, and only the manifest
marks them as complete.
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

METRIC = "heldout/loss"  # lowest is best for `keep_best`


class CheckpointError(ValueError):
    """A requested checkpoint is missing or damaged, or one could not be written."""


class _WithManifest:
    """Mixin for Orbax's temporary paths: writes the manifest when the folder is complete."""

    async def finalize(self) -> None:
        await super().finalize()  # type: ignore[misc]
        folder = path_of(self.get_final())  # type: ignore[attr-defined]
        if folder.name.isdigit():  # parts of a checkpoint are finalised here too
            write_manifest(folder)


class _Renamed(_WithManifest, ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A folder on a disk, renamed at the end."""


class _InPlace(_WithManifest, ocp.path.atomicity.CommitFileTemporaryPath):
    """A folder in a store that TensorStore can write to, at its final path from the start."""


class _Staged(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A folder in another store, written on this machine and uploaded at the end."""

    @classmethod
    def from_final(cls, final_path: Any, **options: Any) -> Any:
        found = super().from_final(final_path, **options)
        if in_store(final_path):  # parts of a checkpoint already have a local path
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


class _StagedWithManifest(_WithManifest, _Staged):
    """A staged folder with a manifest."""


class _Manager(ocp.CheckpointManager):
    """Leaves preemption checks to the train loop: JAX counts the calls on every process."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of a run, by number of training steps.

    With several processes all of them must make the same calls. The folder is only read until
    `open` or the first `save`, so that one process can sample while another one trains.

    Args:
        folder: folder of all checkpoints of the run.
        keep_last: number of newest checkpoints to keep; None: all.
        keep_every: also keep those at multiples of this step; 0: none.
        keep_best: also keep this many with the lowest `METRIC`, of those that have one.
    """

    def __init__(
        self, folder: Path, keep_last: int | None = 3, keep_every: int = 0, keep_best: int = 0
    ) -> None:
        self._folder = folder.absolute()
        every = [EveryNSteps(keep_every)] if keep_every else []
        best = BestN(  # sorted in reverse: the lowest is the best
            get_metric_fn=_loss, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False
        )
        self._policies = [LatestN(keep_last), *every, best]
        # TensorStore can write to Google's store; Orbax cannot write to others.
        self._direct = not in_store(folder) or str(folder).startswith("gs://")
        written = _InPlace if in_store(folder) else _Renamed
        self._temporary_path = written if self._direct else _StagedWithManifest
        self._begun: set[int] = set()
        self._damage: dict[int, str | None] = {}
        self._reported: set[int] = set()

    @functools.cached_property
    def _manager(self) -> _Manager:
        """The manager; creating it deletes unfinished and damaged checkpoints."""
        if jax.process_index() == 0 and self._folder.exists():
            for path in list(self._folder.iterdir()):
                # Now, as the disk may be full; Orbax would delete it in the background.
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
        _save_in_place()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(self._policies),
            best_fn=_loss,  # required for metrics to be written
            temporary_path_class=self._temporary_path,
            enable_async_checkpointing=True,
        )
        return _Manager(self._folder, options=options)

    def open(self) -> None:
        """Prepares for saving: deletes unfinished checkpoints and those known to be damaged.

        Raises a CheckpointError if the folder cannot be written to.
        """
        if jax.process_count() > 1 and not self._direct:
            raise CheckpointError(
                f"several processes cannot write checkpoints to {self._folder}: give a --workdir "
                "on a disk that all of them see, or on gs://"
            )
        with self._errors("no checkpoint can be written"):
            if not self._direct:
                temporary_folder().cleanup()  # fails if this machine has no space for them
            self._manager.reload()

    def steps(self) -> list[int]:
        """Saved steps in order; their checksums are verified on use."""
        found = self._folder.glob(f"*/{MANIFEST}")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())

    def latest(self) -> int | None:
        """Newest undamaged step; None if none was saved.

        Prints a line for each newer one that is damaged; `open` deletes these.

        Raises:
            CheckpointError: all checkpoints are damaged.
        """
        bad: dict[int, str] = {}
        for step in reversed(self.steps()):
            if damage := self._find_damage(step):
                bad[step] = damage
                continue
            for other in bad.keys() - self._reported:
                wrong = f"checkpoint of step {other} is damaged (file {bad[other]})"
                _say(f"{wrong}: going on from step {step}")
            self._reported |= bad.keys()
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
        """Starts to save a pytree of arrays and the state of the data iterator.

        Does nothing if that step is saved or being saved already.

        Args:
            step: number of training steps taken.
            state: any pytree of arrays; it is copied before this returns.
            data_state: JSON-serialisable.
            metrics: measured values; `METRIC` is used by `keep_best`.

        Raises:
            CheckpointError: this or the previous checkpoint could not be written.
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
                # In a list, as Orbax does not accept a bare array.
                state=ocp.args.StandardSave([state]),
                data=ocp.args.JsonSave(data_state),
            )
            measured = dict(metrics) if METRIC in metrics else None
            self._manager.save(step, args=items, metrics=measured, force=True)
            self._begun.add(step)

    def restore(self, template: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """State and data state at `step` (None: the newest undamaged one), shaped like `template`.

        Args:
            template: pytree of arrays or `jax.ShapeDtypeStruct`s. Arrays are restored with its
                `sharding`, whatever they were saved with; without one, on one device.
            step: the exact step; no other is used instead.

        Raises:
            CheckpointError: there is no such checkpoint, it is damaged, or shapes differ.
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
        """Raises a CheckpointError if the shapes in `folder` differ from the template's."""
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
        """Raises the CheckpointError of a write that has failed; does not wait."""
        if self._begun and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for pending writes; raises a CheckpointError if one failed."""
        if self._begun:
            with self._errors(f"the checkpoint of step {max(self._begun)} could not be written"):
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turns errors of Orbax and TensorStore into one-line CheckpointErrors."""
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
        """Name of a damaged file of that checkpoint; verified once, by one process for all."""
        if step not in self._damage:
            damage = find_damage(self._folder / str(step)) if jax.process_index() == 0 else None
            if jax.process_count() > 1:
                anything = multihost_utils.broadcast_one_to_all(np.bool_(damage is not None))
                damage = damage or (MANIFEST if anything else None)
            self._damage[step] = damage
        return self._damage[step]


def _loss(metrics: Mapping[str, float]) -> float:
    """The metric; NaN, which has no order, counts as worst."""
    loss = metrics.get(METRIC, np.inf)
    return float(np.nan_to_num(loss, nan=np.inf, posinf=np.inf))


def _shapes(tree: Any) -> dict[str, str]:
    """Shapes of the leaves of `[tree]` in words, by name; for keys, of their data."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")

    def shape(leaf: Any) -> tuple[int, ...]:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        return tuple(leaf.shape)

    return {name(path[1:]): f"of shape {shape(leaf)}" for path, leaf in leaves}


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of a leaf."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


@functools.cache
def _save_in_place() -> None:
    """Makes Orbax read arrays where they lie.

    For replicas to write parts of an array each, it would make these parts anew on the devices.
    """
    handler = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
    ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


@functools.cache
def _drop_late_failures() -> None:
    """Silences failed writes that end after Orbax has raised the error of the first one.

    They find its event loop closed, and Python would print them as unraisable.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)
