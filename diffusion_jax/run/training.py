"""The stage that trains."""

import contextlib

from clu import parameter_overview

from diffusion_jax.build import make_step
from diffusion_jax.data import train_batches
from diffusion_jax.devices import is_main
from diffusion_jax.heldout import HeldoutLoss
from diffusion_jax.provenance import write_config
from diffusion_jax.run.job import Job
from diffusion_jax.run.planning import print_plan
from diffusion_jax.run.sampling import draw_grid
from diffusion_jax.training import loop
from diffusion_jax.training.state import TrainState, initial_state
from diffusion_jax.training.writers import make_writer


def train(job: Job) -> int:
    """Trains to the end from the newest checkpoint; the signal that came first, or 0."""
    config, parts, parallel = job.config, job.parts, job.parallel
    if job.checkpoints.latest() == config.train.steps:
        print(f"training is done: step {config.train.steps} is in {job.workdir}")
        return 0
    job.checkpoints.open()  # which may make room on a full disk
    if is_main():
        write_config(config, job.workdir)
    batches = train_batches(
        parts.dataset,
        batch_size=config.train.batch_size // parallel.share[1],
        seed=config.seed,
        flip=config.data.flip,
        num_workers=config.data.num_workers,
        prefetch=config.data.prefetch,
        process_index=parallel.share[0],
        process_count=parallel.share[1],
    )
    state = initial_state(
        parts.init, parts.optimizer, job.init_key, parts.averages, parallel.shardings
    )
    print_overview(job, state)
    print_plan(config, parts, only_warnings=True)
    if job.checkpoints.latest() is not None:
        state, data_state = job.checkpoints.restore(state)
        batches.set_state(data_state)
        print(f"going on from step {int(state.step)}", flush=True)
    writer = make_writer(job.workdir, print)
    heldout = HeldoutLoss(parts.heldout_loss, parts.dataset)

    def measure(step: int, state: TrainState) -> dict[str, float]:
        return heldout(job.snapshots.average(state, job.ema))

    def show(step: int, state: TrainState) -> dict[str, float]:
        path = job.workdir / "samples" / f"step_{step:08d}.png"
        sheet = draw_grid(job, job.snapshots.average(state, job.ema), step, path)
        writer.write_images(step, {"samples": sheet[None]})
        return {}

    def snapshot(step: int, state: TrainState) -> dict[str, float]:
        if step < config.train.steps:  # the last checkpoint has the last averages
            job.snapshots.save(step, state)
        return {}

    every, start = config.ema.snapshot_every, int(state.step)
    if every and start and start % every == 0:
        snapshot(start, state)  # a run that was killed may have saved the checkpoint alone

    settings = config.train
    with contextlib.ExitStack() as closing:
        for close in (batches.close, writer.close, job.checkpoints.wait):
            closing.callback(close)
        return loop.train(
            make_step(config, parts, parallel.axis_name),
            state,
            batches,
            job.train_key,
            parallel=parallel,
            batch_size=settings.batch_size,
            cadence=loop.Cadence(
                settings.steps,
                settings.log_every,
                settings.checkpoint_every,
                settings.max_skipped,
            ),
            checkpoints=job.checkpoints,
            writer=writer,
            actions=[
                (settings.heldout_every, measure),
                (settings.sample_every, show),
                (every, snapshot),
            ],
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
