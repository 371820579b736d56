"""The stage that trains."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from clu import parameter_overview

from diffusion_jax.data import train_batches
from diffusion_jax.evaluation.heldout import HeldoutLoss
from diffusion_jax.from_config import Config, make_step
from diffusion_jax.run.planning import print_plan
from diffusion_jax.run.provenance import write_config
from diffusion_jax.run.sampling import draw_grid
from diffusion_jax.run.trained import Run
from diffusion_jax.system.devices import is_main, put
from diffusion_jax.training import loop
from diffusion_jax.training.abreast import (
    Abreast,
    AbreastBatches,
    AbreastCheckpoints,
    AbreastWriter,
    abreast,
    stack,
)
from diffusion_jax.training.state import TrainState, initial_state
from diffusion_jax.training.step import TrainStep
from diffusion_jax.training.writers import make_writer
from diffusion_jax.types import Params


def train(run: Run) -> int:
    """Trains to the end from the newest checkpoint; the signal that came first, or 0."""
    steps = run.config.train.steps
    if run.checkpoints.latest() == steps:
        print(f"training is done: step {steps} is in {run.workdir}")
        return 0
    _open(run)
    batches = _batches(run)
    state = _initial_state(run)
    print_overview(run, state)
    print_plan(run.config, run.parts, only_warnings=True)
    if run.checkpoints.latest() is not None:
        state, data_state = run.checkpoints.restore(state)
        batches.set_state(data_state)
        print(f"going on from step {int(state.step)}", flush=True)
    writer = make_writer(run.workdir, print)
    frozen = _frozen(run)
    return _loop(
        run.config,
        make_step(run.config, run.parts, run.parallel.axis_name),
        state,
        batches,
        run.train_key,
        _actions(run, writer, frozen),
        frozen,
        parallel=run.parallel,
        checkpoints=run.checkpoints,
        writer=writer,
    )


def train_abreast(runs: Sequence[Run]) -> int:
    """Trains runs that differ in their seeds alone by one program, from the start; as `train`."""
    first = runs[0]
    for run in runs:
        _open(run)
    writers = [make_writer(run.workdir, print) for run in runs]
    states = [_initial_state(run) for run in runs]
    print_overview(first, states[0])
    print_plan(first.config, first.parts, only_warnings=True)
    frozen = _frozen(first)
    actions = [_actions(run, writer, frozen) for run, writer in zip(runs, writers, strict=True)]
    return _loop(
        first.config,
        make_step(first.config, first.parts),
        stack(states),
        AbreastBatches([_batches(run) for run in runs]),
        stack([run.train_key for run in runs]),
        [(each[0][0], abreast([own for _, own in each])) for each in zip(*actions, strict=True)],
        frozen,
        parallel=Abreast(),
        checkpoints=AbreastCheckpoints([run.checkpoints for run in runs]),
        writer=AbreastWriter(writers),
    )


def _open(run: Run) -> None:
    """Makes the workdir ready for a training."""
    run.checkpoints.open()  # which may make room on a full disk
    if is_main():
        write_config(run.config, run.workdir)


def _batches(run: Run) -> Any:
    data, share = run.config.data, run.parallel.share
    return train_batches(
        run.parts.dataset,
        batch_size=run.config.train.batch_size // share[1],
        seed=run.config.seed,
        flip=data.flip,
        num_workers=data.num_workers,
        prefetch=data.prefetch,
        process_index=share[0],
        process_count=share[1],
        embed=run.conditions.embed("train"),
    )


def _initial_state(run: Run) -> TrainState:
    parts = run.parts
    return initial_state(
        parts.task.init, parts.optimizer, run.init_key, parts.averages, run.parallel.shardings
    )


def _frozen(run: Run) -> Mapping[str, Params]:
    """One copy of the parameters that are not trained, laid out over the devices once."""
    frozen = run.parts.task.frozen
    return jax.tree.map(put, frozen, run.parallel.shardings(frozen))


def _actions(run: Run, writer: Any, frozen: Mapping[str, Params]) -> list[tuple[int, loop.Action]]:
    """What is done now and then, and how often."""
    config, parts = run.config, run.parts
    heldout = HeldoutLoss(
        parts.task.heldout_loss, parts.dataset, run.conditions.cond_of, config.train.batch_size
    )

    def measure(step: int, state: TrainState) -> dict[str, float]:
        return heldout(run.snapshots.average(state, run.average), state, frozen)

    def show(step: int, state: TrainState) -> dict[str, float]:
        path = run.workdir / "samples" / f"step_{step:08d}.png"
        writer.write_images(step, {"samples": draw_grid(run.preview(state), path)[None]})
        return {}

    def snapshot(step: int, state: TrainState) -> dict[str, float]:
        if step < config.train.steps:  # the last checkpoint has the last averages
            run.snapshots.save(step, state)
        return {}

    return [
        (config.train.heldout_every, measure),
        (config.train.sample_every if run.generator else 0, show),
        (config.ema.snapshot_every, snapshot),
    ]


def _loop(
    config: Config,
    step: TrainStep,
    state: TrainState,
    batches: Any,
    key: Any,
    actions: Sequence[tuple[int, loop.Action]],
    frozen: Mapping[str, Params],
    *,
    parallel: Any,
    checkpoints: Any,
    writer: Any,
) -> int:
    """`loop.train` with a config's settings; closes what it was given."""
    settings = config.train
    every, snapshot = actions[-1]
    start = int(np.min(state.step))
    if every and start and start % every == 0:
        snapshot(start, state)  # a run that was killed may have saved the checkpoint alone
    with contextlib.ExitStack() as closing:
        for close in (batches.close, writer.close, checkpoints.wait):
            closing.callback(close)
        return loop.train(
            step,
            state,
            batches,
            key,
            parallel=parallel,
            batch_size=settings.batch_size,
            cadence=loop.Cadence(
                settings.steps,
                settings.log_every,
                settings.checkpoint_every,
                settings.max_skipped,
            ),
            checkpoints=checkpoints,
            writer=writer,
            frozen=frozen,
            actions=actions,
            stall_seconds=config.data.stall_seconds,
        )


def print_overview(run: Run, state: TrainState) -> None:
    """Prints the parameters, their number, and the cost of one item."""
    print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    dataset = run.parts.dataset
    sizes = [f"{len(dataset.splits[split]):,}" for split in ("train", "heldout")]
    print(
        f"{dataset.name}: {sizes[0]} training and {sizes[1]} held-out {dataset.kind.words}, "
        f"{dataset.num_classes} classes; {run.cost(state)}"
    )
    if dataset.skipped:
        names = ", ".join(dataset.skipped[:5])
        print(f"skipped {len(dataset.skipped)} unreadable images: {names}")
