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
from diffusion_jax.run.job import Job
from diffusion_jax.run.planning import print_plan
from diffusion_jax.run.provenance import write_config
from diffusion_jax.run.sampling import draw_grid
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


def train(job: Job) -> int:
    """Trains to the end from the newest checkpoint; the signal that came first, or 0."""
    steps = job.config.train.steps
    if job.checkpoints.latest() == steps:
        print(f"training is done: step {steps} is in {job.workdir}")
        return 0
    _open(job)
    batches = _batches(job)
    state = _initial_state(job)
    print_overview(job, state)
    print_plan(job.config, job.parts, only_warnings=True)
    if job.checkpoints.latest() is not None:
        state, data_state = job.checkpoints.restore(state)
        batches.set_state(data_state)
        print(f"going on from step {int(state.step)}", flush=True)
    writer = make_writer(job.workdir, print)
    frozen = _frozen(job)
    return _loop(
        job.config,
        make_step(job.config, job.parts, job.parallel.axis_name),
        state,
        batches,
        job.train_key,
        _actions(job, writer, frozen),
        frozen,
        parallel=job.parallel,
        checkpoints=job.checkpoints,
        writer=writer,
    )


def train_abreast(jobs: Sequence[Job]) -> int:
    """Trains runs that differ in their seeds alone by one program, from the start; as `train`."""
    first = jobs[0]
    for job in jobs:
        _open(job)
    writers = [make_writer(job.workdir, print) for job in jobs]
    states = [_initial_state(job) for job in jobs]
    print_overview(first, states[0])
    print_plan(first.config, first.parts, only_warnings=True)
    frozen = _frozen(first)
    actions = [_actions(job, writer, frozen) for job, writer in zip(jobs, writers, strict=True)]
    return _loop(
        first.config,
        make_step(first.config, first.parts),
        stack(states),
        AbreastBatches([_batches(job) for job in jobs]),
        stack([job.train_key for job in jobs]),
        [(each[0][0], abreast([own for _, own in each])) for each in zip(*actions, strict=True)],
        frozen,
        parallel=Abreast(),
        checkpoints=AbreastCheckpoints([job.checkpoints for job in jobs]),
        writer=AbreastWriter(writers),
    )


def _open(job: Job) -> None:
    """Makes the workdir ready for a training."""
    job.checkpoints.open()  # which may make room on a full disk
    if is_main():
        write_config(job.config, job.workdir)


def _batches(job: Job) -> Any:
    data, share = job.config.data, job.parallel.share
    return train_batches(
        job.parts.dataset,
        batch_size=job.config.train.batch_size // share[1],
        seed=job.config.seed,
        flip=data.flip,
        num_workers=data.num_workers,
        prefetch=data.prefetch,
        process_index=share[0],
        process_count=share[1],
        embed=job.conditions.embed("train"),
    )


def _initial_state(job: Job) -> TrainState:
    parts = job.parts
    return initial_state(
        parts.init, parts.optimizer, job.init_key, parts.averages, job.parallel.shardings
    )


def _frozen(job: Job) -> Mapping[str, Params]:
    """One copy of the parameters that are not trained, laid out over the devices once."""
    frozen = job.parts.frozen
    return jax.tree.map(put, frozen, job.parallel.shardings(frozen))


def _actions(job: Job, writer: Any, frozen: Mapping[str, Params]) -> list[tuple[int, loop.Action]]:
    """What is done now and then, and how often."""
    config = job.config
    parts, size = job.parts, config.train.batch_size
    heldout = HeldoutLoss(parts.heldout_loss, parts.dataset, job.conditions.cond_of, size)

    def measure(step: int, state: TrainState) -> dict[str, float]:
        return heldout(job.snapshots.average(state, job.ema), state, frozen)

    def show(step: int, state: TrainState) -> dict[str, float]:
        path = job.workdir / "samples" / f"step_{step:08d}.png"
        sheet = draw_grid(job, job.snapshots.average(state, job.ema), step, path)
        writer.write_images(step, {"samples": sheet[None]})
        return {}

    def snapshot(step: int, state: TrainState) -> dict[str, float]:
        if step < config.train.steps:  # the last checkpoint has the last averages
            job.snapshots.save(step, state)
        return {}

    return [
        (config.train.heldout_every, measure),
        (config.train.sample_every if parts.draws else 0, show),
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


def print_overview(job: Job, state: TrainState) -> None:
    """Prints the parameters, their number, and the cost of one image."""
    print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    dataset = job.parts.dataset
    print(
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.heldout):,} "
        f"held-out images of {'x'.join(map(str, dataset.image_shape))}, "
        f"{dataset.num_classes} classes; {job.cost(state)}"
    )
    if dataset.skipped:
        names = ", ".join(dataset.skipped[:5])
        print(f"skipped {len(dataset.skipped)} unreadable images: {names}")
