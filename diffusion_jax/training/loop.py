"""The training loop of all objectives."""

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.system.memory import device_memory
from diffusion_jax.system.signals import stop_signal
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.movement import Movement
from diffusion_jax.training.parallel import Parallel
from diffusion_jax.training.progress import Progress
from diffusion_jax.training.stalls import StallWatch
from diffusion_jax.training.state import TrainState
from diffusion_jax.training.step import TrainStep
from diffusion_jax.training.trace import Trace
from diffusion_jax.types import Key, Params

Action = Callable[[int, TrainState], Mapping[str, float]]
"""A periodic action on the step and one copy of the state; returns measured scalars."""


NOT_SOUND = "loss or gradient not finite, or larger than train.max_grad_norm"
IN_FLIGHT = 2
"""Steps dispatched to the devices before it is read whether the first of them was skipped."""


class TrainingError(RuntimeError):
    """Training cannot continue."""


class Ready(NamedTuple):
    """Arguments of `train` for one run, or for several runs trained together."""

    state: TrainState
    batches: Any
    key: Key
    parallel: Parallel
    checkpoints: Any
    writer: Any
    frozen: Mapping[str, Params]
    actions: Sequence[tuple[int, Action]]


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Lengths in steps: of the run, and between two logs, checkpoints and other actions."""

    steps: int  # of the whole run
    log_every: int  # between two logs
    checkpoint_every: int  # between two checkpoints; 0: at the end only
    max_skipped: int  # consecutive skipped steps that end the run


def train(
    train_step: TrainStep,
    state: TrainState,
    batches: Any,
    key: Key,
    *,
    parallel: Parallel,
    batch_size: int,
    cadence: Cadence,
    checkpoints: Checkpoints,
    writer: Any,
    frozen: Mapping[str, Params] = {},
    actions: Sequence[tuple[int, Action]] = (),
    stall_seconds: float = 60.0,
    noun: str = "items",
    traced: tuple[Path, int] | None = None,
) -> int:
    """Trains from `state.step` to `cadence.steps`, over all devices.

    Several runs trained together (`training/abreast.py`) have a leading axis in state and metrics.

    Args:
        train_step: with means over `parallel.axis_name`.
        state: one copy of it.
        batches: a Grain iterator of `{'x', 'cond'}` of `batch_size`, with `get_state`.
        key: base key of the run; each step folds in its number.
        parallel: how the step runs over the devices.
        batch_size: items per step, a multiple of the number of devices.
        cadence: how long, and how often to log and to save.
        checkpoints: where to save.
        writer: a clu `MetricWriter`.
        frozen: one copy of the parameters that are not trained, by name; they are not saved.
        actions: `(every_steps, action)`, for sample grids and held-out loss.
        stall_seconds: warn after this time without a new batch.
        noun: of the items, for the line that shows the rate.
        traced: folder and number of steps of a trace; None for no trace.

    Returns:
        The signal that ended it early, 0 if none did. The state has been saved.

    Raises:
        TrainingError: too many steps in a row were skipped, or all of the run; or a group whose
            updates are among the metrics does not move.
        CheckpointError: a checkpoint could not be written.
    """
    step_fn = parallel.compile(train_step)
    start = int(np.min(state.step))
    placed, keys = parallel.place((state, key))
    frozen = parallel.place(frozen, donated=False)
    progress = Progress(cadence.steps, start, batch_size, noun)
    trace = Trace(*(traced or (Path(), 0)), start, progress.say)
    window: list[Mapping[str, Any]] = []
    movement, unread = Movement(), deque[tuple[int, Any]]()
    measured: dict[str, float] = {}
    told = clock = time.monotonic()

    def log(step: int) -> None:
        nonlocal told, clock
        checkpoints.check()
        rows, now = parallel.read(window), time.monotonic()
        sound = [row for row in rows if not np.any(row["skipped"])]
        if skipped := len(rows) - len(sound):
            first = next(i for i, row in enumerate(rows) if np.any(row["skipped"]))
            had = batches.describe(step - len(rows) + first)
            which = f"{skipped} of the last {len(rows)} steps"
            progress.say(f"warning: {which} skipped ({NOT_SOUND}); the first had {had}")
        scalars: dict[str, Any] = {
            **{name: np.mean([row[name] for row in sound or rows], 0) for name in rows[0]},
            "skipped": skipped,
            "items_per_second": batch_size * len(window) / (now - clock),
            **device_memory(),
            "train_seconds": now - told,  # a killed run loses only the last part
        }
        window.clear()
        told = clock = now
        writer.write_scalars(step, scalars)
        progress.report(step, scalars)
        if said := movement(sound):
            raise TrainingError(f"step {step}: {said}")

    def check_skipped(most: int) -> None:
        """Ends the run at too many skipped steps in a row; leaves at most `most` steps unread."""
        while len(unread) > most:
            step, skipped = unread.popleft()
            count = int(np.max(parallel.read(skipped)))
            if count >= min(cadence.max_skipped, cadence.steps):
                first = step - count  # a step's number is that of its batch, from 0
                raise TrainingError(
                    f"{count} steps in a row skipped ({NOT_SOUND}), the first of them step "
                    f"{first + 1} with {batches.describe(first)}; the newest checkpoint is of step "
                    f"{checkpoints.latest()}. Try a lower optimizer.learning_rate or clip_norm"
                )

    def save(step: int) -> None:
        writer.flush()  # a run resumed from here has all rows before it
        checkpoints.save(step, parallel.fetch(placed), batches.get_state(), measured)
        measured.clear()  # a later checkpoint needs a measurement of its own

    def apart(action: Action, step: int) -> None:
        nonlocal clock
        before = time.monotonic()
        jax.block_until_ready(placed)
        if scalars := action(step, parallel.fetch(placed)):
            writer.write_scalars(step, scalars)
            measured.update(scalars)
        clock += time.monotonic() - before  # the logged rate is that of training alone

    def trace_at(step: int) -> None:
        nonlocal clock
        before = time.monotonic()
        if trace.at(step, placed):
            clock += time.monotonic() - before

    hooks = [(cadence.log_every, log)]
    hooks += [(every, functools.partial(apart, action)) for every, action in actions]
    hooks += [(cadence.checkpoint_every, save)]  # with what was measured at this step
    with stop_signal() as stopped, StallWatch(batches, stall_seconds) as watched:
        step = start
        while step < cadence.steps and not stopped(step):
            trace_at(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                placed, metrics = step_fn(placed, parallel.split(next(watched)), keys, frozen)
            if step == start:
                clock = time.monotonic()  # the logged rate is without compilation
            step += 1
            window.append(metrics)
            unread.append((step, metrics["skipped"]))
            progress.step()
            due = [hook for every, hook in hooks if every and step % every == 0]
            check_skipped(0 if due else IN_FLIGHT)
            for hook in due:
                hook(step)
        check_skipped(0)
        trace.close(step)
        if window:
            log(step)
        save(step)
        checkpoints.wait()
    progress.close()
    writer.write_scalars(step, {"train_seconds": time.monotonic() - told})
    return stopped(step)
