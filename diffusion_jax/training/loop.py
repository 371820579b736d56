"""The one training loop, whatever the objective."""

import contextlib
import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.progress import Progress
from diffusion_jax.training.state import TrainState
from diffusion_jax.training.step import TrainStep
from diffusion_jax.training.writers import periodic
from diffusion_jax.types import Batch, Key

AXIS = "devices"
"""Name of the mapped axis that `train` gives to its step."""

Action = Callable[[int, TrainState], None]
"""Something done now and then with the step and an unreplicated state."""


class TrainingError(RuntimeError):
    """Training cannot go on."""


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Lengths in steps: of the run, and between two logs, checkpoints and other actions."""

    steps: int
    log_every: int
    checkpoint_every: int


def train(
    train_step: TrainStep,
    state: TrainState,
    batches: Any,
    key: Key,
    *,
    batch_size: int,
    cadence: Cadence,
    checkpoints: Checkpoints,
    writer: Any,
    actions: Sequence[tuple[int, Action]] = (),
) -> tuple[TrainState, bool]:
    """Trains from `state.step` to `cadence.steps`, over all local devices.

    Args:
        train_step: with its means over the axis `AXIS`.
        state: unreplicated.
        batches: a Grain iterator of `{'x', 'cond'}` of `batch_size`, with `get_state`.
        key: base key of the run; the step folds its number in.
        batch_size: images per step, a multiple of the number of devices.
        cadence: how long, and how often to log and to save.
        checkpoints: where to save.
        writer: a clu `MetricWriter`.
        actions: `(every_steps, action)`, for sample grids and held-out loss.

    Returns:
        The unreplicated state, and whether Ctrl-C ended it early. It has been saved.

    Raises:
        TrainingError: the loss is not finite any more.
    """
    step_fn = jax.pmap(train_step, axis_name=AXIS, donate_argnums=0)
    start = int(state.step)
    replicated, keys = replicate((state, key))
    progress = Progress(cadence.steps, start, batch_size)
    window: list[Mapping[str, Any]] = []
    began = clock = time.monotonic()

    def log(step: int) -> None:
        nonlocal clock
        rows = jax.device_get(window)
        scalars = {name: float(np.mean([row[name][0] for row in rows])) for name in rows[0]}
        if not math.isfinite(scalars["loss"]):
            raise TrainingError(
                f"the loss is {scalars['loss']} by step {step}; the newest checkpoint is of step "
                f"{checkpoints.latest()}. Try a lower optimizer.learning_rate or clip_norm"
            )
        now = time.monotonic()
        scalars["images_per_second"] = batch_size * len(window) / (now - clock)
        window.clear()
        clock = now
        writer.write_scalars(step, scalars)
        progress.report(step, scalars)

    def save(step: int) -> None:
        checkpoints.save(unreplicate(replicated), batches.get_state())

    hooks = [periodic(cadence.log_every, log), periodic(cadence.checkpoint_every, save)]

    def apart(action: Action, step: int) -> None:
        nonlocal clock
        before = time.monotonic()
        jax.block_until_ready(replicated)
        action(step, unreplicate(replicated))
        clock += time.monotonic() - before  # the logged rate is that of training alone

    hooks += [periodic(every, functools.partial(apart, action)) for every, action in actions]
    with interrupt_flag() as interrupted:
        step = start
        while step < cadence.steps and not interrupted():
            replicated, metrics = step_fn(replicated, shard(next(batches)), keys)
            step += 1
            window.append(metrics)
            progress.step()
            for hook in hooks:
                hook(step)
        save(step)
    progress.close()
    writer.write_scalars(step, {"train_seconds": time.monotonic() - began})
    return unreplicate(replicated), interrupted()


def replicate(tree: Any) -> Any:
    """A copy of every array on each local device, `[devices, ...]`.

    Placed as `jax.pmap` returns its results: placed otherwise the step would compile twice.
    """
    devices = jax.local_devices()
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))
    return jax.tree.map(
        lambda a: jax.device_put(jnp.broadcast_to(a, (len(devices), *a.shape)), sharding), tree
    )


def unreplicate(tree: Any) -> Any:
    """The first device's copy."""
    return jax.tree.map(lambda a: a[0], tree)


def shard(batch: Batch) -> Batch:
    """Splits `[B, ...]` into `[devices, B / devices, ...]`, with each sample's place as `index`."""
    batch = {**batch, "index": np.arange(len(batch["x"]))}
    devices = jax.local_device_count()
    return jax.tree.map(lambda a: np.reshape(a, (devices, -1, *np.shape(a)[1:])), batch)


@contextlib.contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted, so that the step at hand is finished and saved; a second one interrupts."""
    hit = []

    def note(signum: int, frame: Any) -> None:
        hit.append(signum)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(hit)
    finally:
        signal.signal(signal.SIGINT, before)
