"""The stage that trains."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from clu import parameter_overview

from diffusion_jax.codecs.moments import encoded
from diffusion_jax.data import Dataset, Record, train_batches
from diffusion_jax.evaluation.heldout import HeldoutLoss
from diffusion_jax.from_config import Config, ConfigError, make_step
from diffusion_jax.from_config.choices import keyed
from diffusion_jax.from_config.identity import (
    Identity,
    check_workdir,
    config_hash,
    write_config,
    write_identity,
)
from diffusion_jax.from_config.published import network_params
from diffusion_jax.generation.generator import SamplingError
from diffusion_jax.run.initial import initial_params
from diffusion_jax.run.planning import NOTHING, print_notes, print_plan, print_space
from diffusion_jax.run.sampling import draw_sheet
from diffusion_jax.run.trained import Run
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.files import in_store
from diffusion_jax.system.runtime import cache_dir
from diffusion_jax.training import loop
from diffusion_jax.training.abreast import abreast
from diffusion_jax.training.state import TrainState, initial_state
from diffusion_jax.training.trace import WARM_UP
from diffusion_jax.training.wandb_writer import wandb_writer
from diffusion_jax.training.writers import make_writer
from diffusion_jax.types import Params


def train(run: Run, profile: int = 0) -> int:
    """Trains to the end from the newest checkpoint; returns the signal that ended it, or 0.

    Args:
        run: to train.
        profile: number of steps to trace.

    Raises:
        ConfigError: fewer steps than `profile` are left, or the workdir cannot hold a trace.
    """
    steps, latest = run.config.train.steps, run.checkpoints.latest()
    if profile:
        _check_profile(run, profile, latest or 0)
    if latest is not None and latest >= steps:
        further = f", further than train.steps={steps}" * (latest > steps)
        print(f"training is done: step {latest} is in {run.workdir}{further}")
        publish(run)
        return 0
    ready = _prepare(run)
    _tell(run, ready.state)
    if latest is not None:
        state, data_state = run.checkpoints.restore(ready.state)
        ready.batches.set_state(data_state)
        ready = ready._replace(state=state)
        print(f"going on from step {int(state.step)}", flush=True)
    signum = _loop(run, ready, (run.workdir / "profile", profile))
    return signum or publish(run)


def check_trained(config: Config) -> None:
    """Raises a ConfigError if there is nothing to train on."""
    if config.data.name == NOTHING:
        raise ConfigError(
            "data.name='none' has no items to train on: --mode sample draws with the weights as "
            "they are"
        )


def _check_profile(run: Run, profile: int, done: int) -> None:
    """Raises a ConfigError for a trace of more steps than are left, or that cannot be written."""
    if in_store(run.workdir):
        raise ConfigError(
            f"--profile={profile}: --workdir={run.workdir} must be a folder on a disk"
        )
    steps = run.config.train.steps
    left = max(0, steps - done - WARM_UP)
    if profile > left:
        raise ConfigError(
            f"--profile={profile}: there are {left} steps to trace: train.steps={steps}, of which "
            f"{done} are done, without {WARM_UP} to warm up"
        )


def train_abreast(runs: Sequence[Run]) -> int:
    """Trains runs that differ only in their seeds in one program, from the start; as `train`."""
    each = [_prepare(run) for run in runs]
    _tell(runs[0], each[0].state)
    signum = _loop(runs[0], abreast(each))
    return signum or max(map(publish, runs))


def publish(run: Run) -> int:
    """Writes the trained network for others to read, if the task has a format for it; returns 0."""
    if run.parts.task.publish:
        params = run.trained().params
        if is_main():
            print(run.parts.task.publish(params, run.workdir))
    return 0


def _prepare(run: Run) -> loop.Ready:
    """Prepares the workdir, and returns all that a training from the start needs."""
    config, task, (index, count) = run.config, run.parts.task, run.parallel.share
    check_workdir(config, run.workdir)  # again: another process may have changed it
    latest, params = run.checkpoints.latest(), None
    if run.published:
        params = network_params(config, task.shapes, task.sizes)
        print(f"starting from the weights of {config.weights.source}")
    if latest is None and config.train.init_from:
        channels = task.inputs[0].shape[-1]
        params = initial_params(config.train.init_from, task.shapes, channels)
        print(f"starting from the parameters of {config.train.init_from}")
    run.checkpoints.open()  # which may free space on a full disk
    if is_main():
        write_config(config, run.workdir)
        before = Identity.read(run.workdir) if latest is not None else None
        changes = [*(before.changes if before else ())]
        if run.changes:
            changes += [f"from step {latest:,} on {', '.join(run.changes)}"]
        data = Record.of(run.parts.dataset)
        write_identity(Identity(config_hash(config), data, changes, run.digests), run.workdir)
    writer = _make_writer(run)
    frozen = {name: run.frozen[name] for name in task.frozen}
    batches = train_batches(
        _stored(run, frozen),
        batch_size=config.train.batch_size // count,
        seed=config.seed,
        flip=config.data.flip,
        num_workers=config.data.num_workers,
        prefetch=config.data.prefetch,
        process_index=index,
        process_count=count,
        embed=run.conditions.embed("train"),
    )
    state = initial_state(
        *(task.init, run.parts.optimizer, run.init_key, run.parts.averages, run.parallel.shardings),
        params,
    )
    actions = _actions(run, writer, frozen)
    return loop.Ready(
        *(state, batches, run.train_key, run.parallel, run.checkpoints, writer, frozen, actions)
    )


def _stored(run: Run, frozen: Mapping[str, Params]) -> Dataset:
    """The data set as it is trained on, which may be encoded first."""
    config, task, dataset = run.config, run.parts.task, run.parts.dataset
    if not task.cached:
        return dataset
    return encoded(
        *(dataset, task.cached, frozen, cache_dir() / "latents"),
        flip=config.data.flip,
        batch_size=config.train.batch_size // config.train.accumulate,
        say=print if is_main() else lambda line: None,
    )


def _make_writer(run: Run) -> Any:
    """Writer of the metrics of a run, also to Weights & Biases if a project is configured."""
    project, settings = run.config.train.wandb, run.config.to_dict()
    others = [lambda: wandb_writer(project, run.workdir, settings, print)] if project else []
    with keyed("train"):
        return make_writer(run.workdir, print, others)


def _actions(run: Run, writer: Any, frozen: Mapping[str, Params]) -> list[tuple[int, loop.Action]]:
    """Periodic actions of the training: number of steps between two, and the function."""
    config, parts = run.config, run.parts
    heldout = HeldoutLoss(
        parts.task.heldout_loss, parts.dataset, run.conditions.cond_of, config.train.batch_size
    )

    def measure(step: int, state: TrainState) -> dict[str, float]:
        return heldout(run.snapshots.average(state, run.average), state, frozen)

    def show(step: int, state: TrainState) -> dict[str, float]:
        path = run.workdir / "samples" / f"step_{step:08d}.png"
        try:
            writer.write_images(step, {"samples": draw_sheet(run.preview(state), path)[None]})
        except SamplingError as error:  # training continues: later samples may be finite
            if is_main():
                print(f"warning: no {path.name}: {error}", file=sys.stderr)
        return {}

    def snapshot(step: int, state: TrainState) -> dict[str, float]:
        if step < config.train.steps:  # the last checkpoint contains the last averages
            run.snapshots.save(step, state)
        return {}

    return [
        (config.train.heldout_every, measure),
        (config.train.sample_every if run.generator or parts.task.sheet else 0, show),
        (config.ema.snapshot_every, snapshot),
    ]


def _loop(run: Run, ready: loop.Ready, traced: tuple[Path, int] | None = None) -> int:
    """`loop.train` with a run's settings; closes batches, writer and checkpoints at the end."""
    settings = run.config.train
    every, snapshot = ready.actions[-1]
    start = int(np.min(ready.state.step))
    if every and start and start % every == 0:
        snapshot(start, ready.state)  # a killed run may have saved only the checkpoint
    cadence = loop.Cadence(
        *(settings.steps, settings.log_every, settings.checkpoint_every, settings.max_skipped)
    )
    step = make_step(run.config, run.parts, ready.parallel.axis_name)
    with contextlib.ExitStack() as closing:
        for close in (ready.batches.close, ready.writer.close, ready.checkpoints.wait):
            closing.callback(close)
        return loop.train(
            step,
            **ready._asdict(),
            batch_size=settings.batch_size,
            cadence=cadence,
            stall_seconds=run.config.data.stall_seconds,
            noun=run.parts.dataset.kind.noun,
            traced=traced,
        )


def _tell(run: Run, state: TrainState) -> None:
    """Prints the parameters, their number, the cost of one item, and warnings of the plan."""
    print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    dataset = run.parts.dataset
    train, heldout = (len(dataset.splits[split]) for split in ("train", "heldout"))
    print(
        f"{dataset.name}: {train:,} training and {heldout:,} held-out {dataset.kind.words}, "
        f"{dataset.num_classes} classes; {run.cost(state)}"
    )
    print_notes(dataset)
    print_space(run.parts)
    print_plan(run.config, run.parts, only_warnings=True)
