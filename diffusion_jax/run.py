"""One run from its config and workdir: train, sample, evaluate, report."""

import contextlib
import dataclasses
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from clu import parameter_overview

from diffusion_jax import report
from diffusion_jax.build import (
    OPTIMISED,
    Config,
    ConfigError,
    Parts,
    build,
    config_hash,
    evaluated,
    grids_to_start_from,
    make_parallel,
    planned_dataset,
    sample_average,
)
from diffusion_jax.data import DataError, arrays, to_float, to_uint8, train_batches
from diffusion_jax.devices import is_main
from diffusion_jax.evaluate import Evaluation, Result, likelihood
from diffusion_jax.extractor import get_extractor
from diffusion_jax.grid_search import Found, cached_times, optimise_times
from diffusion_jax.heldout import HeldoutLoss
from diffusion_jax.models.flops import count_flops
from diffusion_jax.pictures import read_made_by, save_gif, save_png, tile
from diffusion_jax.plan import TopologyError, make_plan, parse_topology, plan_here, plan_topology
from diffusion_jax.provenance import check_workdir, environment, write_config
from diffusion_jax.runtime import cache_dir, enable_compilation_cache, tune_cpu_allocator
from diffusion_jax.sample import cycle_labels, proportional_labels
from diffusion_jax.training.checkpoint import CheckpointError, Checkpoints
from diffusion_jax.training.ema import never_moved
from diffusion_jax.training.loop import Cadence, TrainingError, train
from diffusion_jax.training.snapshots import Snapshots
from diffusion_jax.training.state import TrainState, create_state, initial_state
from diffusion_jax.training.step import make_train_step
from diffusion_jax.training.writers import make_writer

USER_ERRORS = (ConfigError, DataError, CheckpointError, TrainingError, TopologyError)
COLUMNS = 10
MOMENT_IMAGES = 1000
"""Training images over which the mean square of the data is taken."""
SHOWN = 100
"""Samples at most in a grid during training, and in the animation."""


def run(config: Config, workdir: Path, mode: str, topology: str = "") -> int:
    """Does what `mode` says; returns the exit status.

    0: done; 2: a mistake of the user's, or a disk that is full or closed, in one line on stderr;
    128 + the number of the signal that ended it, that is 130 for Ctrl-C and 143 for SIGTERM.

    With mode "plan" `topology` names the devices to plan for, those that are there if ''.
    """
    try:
        return _run(config, workdir, mode, topology)
    except USER_ERRORS as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or workdir}: {error.strerror or error}"
    except KeyboardInterrupt:  # outside of training, which ends by itself
        print("interrupted; what is missing is made by the same command", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"error: {message}", file=sys.stderr)
    return 2


def _run(config: Config, workdir: Path, mode: str, topology: str) -> int:
    logging.set_verbosity(logging.FATAL)  # Orbax tells of all it writes, and logs what it raises
    tune_cpu_allocator()
    enable_compilation_cache()
    if mode == "plan":
        plan(config, topology)
        return 0
    if topology:
        raise ConfigError(f"--topology={topology} goes with --mode plan, not {mode}")
    check_workdir(config, workdir)
    job = Job(config, workdir, build(config))
    if mode in ("all", "train") and (signum := job.train()):
        print(f"stopped and saved; go on with the same command: {command()}")
        return 128 + signum
    if mode in ("all", "sample"):
        job.sample(again=mode == "sample")
    if mode in ("all", "evaluate"):
        job.evaluate(again=mode == "evaluate")
    return 0


def plan(config: Config, topology: str) -> None:
    """Prints what is said of the noise levels, where the data is there, and of the devices."""
    target = parse_topology(topology) if topology else None
    if target:
        jax.config.update("jax_platforms", "cpu")  # the devices are elsewhere
    dataset = planned_dataset(config)
    if len(dataset.train):
        print_plan(config, build(config, dataset, target.count if target else None))
    else:
        print("the part on noise levels is left out: it needs the images, and they are not here")
    print(
        "\n".join(plan_topology(config, dataset, target) if target else plan_here(config, dataset))
    )


def print_plan(config: Config, parts: Parts, only_warnings: bool = False) -> None:
    """Prints what is said of the noise levels; warnings go to stderr."""
    images, _ = arrays(parts.dataset.train, MOMENT_IMAGES)
    plan = make_plan(config, parts, float(np.mean(to_float(images) ** 2)))
    if not only_warnings:
        print("\n".join(plan.lines))
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def command() -> str:
    """The command line that started this run."""
    return " ".join(["python", *sys.argv])


@dataclasses.dataclass
class Job:
    """A config, where its run lives, and the parts it means."""

    config: Config
    workdir: Path
    parts: Parts

    def __post_init__(self) -> None:
        self.labels(np.arange(1))  # refuses bad ones before any time is spent
        self.init_key, self.train_key = jax.random.split(jax.random.key(self.config.seed))
        kept = self.config.train
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints", kept.keep_checkpoints, kept.keep_every, kept.keep_best
        )
        self.snapshots = Snapshots(self.workdir / "snapshots", self.parts.averages)
        self.ema = sample_average(self.config)
        self.generator = self.parts.generator
        self.parallel = make_parallel(self.config)

    # Training

    def abstract_state(self) -> TrainState:
        """Shapes and types of the state, and where it lies."""
        shapes = jax.eval_shape(
            lambda key: create_state(
                self.parts.init(key), self.parts.optimizer, self.parts.averages
            ),
            self.init_key,
        )
        return jax.tree.map(
            lambda a, sharding: a.update(sharding=sharding), shapes, self.parallel.shardings(shapes)
        )

    def train(self) -> int:
        """Trains to the end from the newest checkpoint; the signal that came first, or 0."""
        config, parts, parallel = self.config, self.parts, self.parallel
        if self.checkpoints.latest() == config.train.steps:
            print(f"training is done: step {config.train.steps} is in {self.workdir}")
            return 0
        self.checkpoints.open()  # which may make room on a full disk
        if is_main():
            write_config(config, self.workdir)
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
            parts.init, parts.optimizer, self.init_key, parts.averages, parallel.shardings
        )
        self.print_overview(state)
        print_plan(config, parts, only_warnings=True)
        if self.checkpoints.latest() is not None:
            state, data_state = self.checkpoints.restore(state)
            batches.set_state(data_state)
            print(f"going on from step {int(state.step)}", flush=True)
        writer = make_writer(self.workdir, print)
        heldout = HeldoutLoss(parts.heldout_loss, parts.dataset)

        def measure(step: int, state: TrainState) -> dict[str, float]:
            return heldout(self.snapshots.average(state, self.ema))

        def show(step: int, state: TrainState) -> dict[str, float]:
            path = self.workdir / "samples" / f"step_{step:08d}.png"
            sheet = self.draw_grid(self.snapshots.average(state, self.ema), step, path)
            writer.write_images(step, {"samples": sheet[None]})
            return {}

        def snapshot(step: int, state: TrainState) -> dict[str, float]:
            if step < config.train.steps:  # the last checkpoint has the last averages
                self.snapshots.save(step, state)
            return {}

        every, start = config.ema.snapshot_every, int(state.step)
        if every and start and start % every == 0:
            snapshot(start, state)  # a run that was killed may have saved the checkpoint alone

        train_step = make_train_step(
            parts.loss,
            parts.optimizer,
            parts.averages,
            config.train.accumulate,
            parallel.axis_name,
            config.train.max_grad_norm,
        )
        settings = config.train
        with contextlib.ExitStack() as closing:
            for close in (batches.close, writer.close, self.checkpoints.wait):
                closing.callback(close)
            return train(
                train_step,
                state,
                batches,
                self.train_key,
                parallel=parallel,
                batch_size=settings.batch_size,
                cadence=Cadence(
                    settings.steps,
                    settings.log_every,
                    settings.checkpoint_every,
                    settings.max_skipped,
                ),
                checkpoints=self.checkpoints,
                writer=writer,
                actions=[
                    (settings.heldout_every, measure),
                    (settings.sample_every, show),
                    (every, snapshot),
                ],
                stall_seconds=config.data.stall_seconds,
            )

    def print_overview(self, state: TrainState) -> None:
        """Prints the parameters, their number, and the cost of one image."""
        print(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        dataset = self.parts.dataset
        print(
            f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.heldout):,} "
            f"held-out images of {'x'.join(map(str, dataset.image_shape))}, "
            f"{dataset.num_classes} classes; {self.cost(state)}"
        )
        if dataset.skipped:
            names = ", ".join(dataset.skipped[:5])
            print(f"skipped {len(dataset.skipped)} unreadable images: {names}")

    def cost(self, state: TrainState) -> str:
        """Size and cost of the network in words."""
        x, t = jnp.zeros((1, *self.parts.dataset.image_shape)), jnp.zeros(1)
        flops = count_flops(
            lambda params: self.parts.generator.apply(params, x, t, {}), state.params
        )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        return f"{parameters:,} parameters, {flops / 1e9:.3g} GFLOP per image and evaluation"

    # Sampling

    def step_to_use(self) -> int | None:
        """Step of the checkpoint that `sample.checkpoint` names; None if there is none yet."""
        step: int = self.config.sample.checkpoint
        return self.checkpoints.latest() if step < 0 else step

    def restore(self) -> tuple[Any, int]:
        """Parameters, averaged as configured, and step of that checkpoint."""
        state = self.restored_state()
        return self.averaged(state, self.ema), int(state.step)

    def restored_state(self) -> TrainState:
        """The state of that checkpoint."""
        state: TrainState = self.checkpoints.restore(self.abstract_state(), self.step_to_use())[0]
        return state

    def averaged(self, state: TrainState, name: str) -> Any:
        """Parameters of a name; warns of averages unfit to sample from.

        The grid is searched for if so configured.
        """
        step = int(state.step)
        params = self.snapshots.average(state, name)
        for warning in self.unfit(params, step, name):
            if is_main():
                print(f"warning: {warning}", file=sys.stderr)
        if self.config.sample.grid == OPTIMISED:
            times = self.optimised_times(params, step, name)
            self.generator = dataclasses.replace(self.parts.generator, times=times)
        return params

    def unfit(self, params: Any, step: int, name: str) -> list[str]:
        """What is wrong with an average, in sentences."""
        found = self.snapshots.unfit(name, step)
        if step and never_moved(params, self.parts.init, self.init_key):
            found.append(
                f"what is sampled with (EMA: {self.snapshots.describe(name)}) has never moved: "
                f"after {step:,} steps it still is the initial parameters"
            )
        return found

    def optimised_times(self, params: Any, step: int, name: str) -> jax.Array:
        """The times that are best for these parameters, searched for once."""
        settings = self.config.sample
        index = np.arange(settings.optimised.images)
        labels = self.labels(index)
        made_by = {**self.made_by(step, self.config.seed, name), "labels": settings.labels}

        def search() -> Found:
            print(f"searching the times of {settings.steps} steps of {settings.sampler}")
            return optimise_times(
                self.parts.generator,
                params,
                jax.random.fold_in(self.init_key, 1),
                jnp.asarray(index),
                {} if labels is None else {"label": jnp.asarray(labels)},
                jnp.asarray(settings.guidance_scale),
                grids_to_start_from(self.config, self.parts.generator.schedule),
                settings.optimised.iterations,
            )

        return cached_times(self.workdir / "grids", made_by, search, print)

    def made_by(self, step: int | None, seed: int, name: str = "") -> dict[str, Any]:
        """What determines a sample, but for its number and label; `name` of the average."""
        sample = self.config.sample

        def words(name: str) -> str:
            """A choice with its settings."""
            settings = ", ".join(f"{key}={value}" for key, value in sample.get(name, {}).items())
            return f"{name}({settings})"

        return {
            "config": config_hash(self.config),
            "checkpoint": step,
            "seed": seed,
            "ema": self.snapshots.describe(name or self.ema),
            "sampler": words(sample.sampler),
            "steps": sample.steps,
            "grid": words(sample.grid) + words("restart") * (sample.restart.repeats > 0),
            "t_max": sample.t_max,
            "guidance_scale": sample.guidance_scale,
            "clip": sample.clip,
        }

    def draw(self, params: Any, seed: int, index: np.ndarray, labels: Any, keep: int = 0) -> Any:
        """Samples number `index` of `seed` as uint8, and kept states."""
        sample = self.config.sample
        return tuple(
            None if x is None else to_uint8(x)
            for x in self.generator(
                params,
                seed,
                index,
                labels,
                sample.guidance_scale,
                batch_size=sample.batch_size,
                keep_every=keep,
            )
        )

    def labels(self, index: np.ndarray) -> np.ndarray | None:
        """Labels that `sample.labels` gives to the samples number `index`."""
        try:
            return cycle_labels(self.config.sample.labels, self.parts.dataset.num_classes, index)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def span(self, index: np.ndarray) -> dict[str, Any]:
        """What a picture of many samples says of their numbers and labels."""
        return {
            "labels": self.config.sample.labels,
            "index": [int(index[0]), int(index[-1])],
        }

    def draw_grid(self, params: Any, step: int, path: Path) -> np.ndarray:
        """Draws the first `SHOWN` samples at most, saves them as a grid and returns it."""
        sample = self.config.sample
        index = sample.first_index + np.arange(min(sample.num_images, SHOWN))
        images, _ = self.draw(params, sample.seed, index, self.labels(index))
        sheet = tile(images, COLUMNS)
        path.parent.mkdir(parents=True, exist_ok=True)
        made_by = {**self.made_by(step, sample.seed), **self.span(index)}
        if sample.grid == OPTIMISED:
            made_by["grid"] = "uniform()"  # a search for each of these would take too long
        if is_main():
            save_png(path, sheet, made_by)
        return sheet

    def sample(self, again: bool) -> None:
        """Draws `sample.num_images`; single pictures, a grid, a strip and an animation."""
        folder = self.workdir / "samples"
        sample = self.config.sample
        index = sample.first_index + np.arange(sample.num_images)
        labels = self.labels(index)
        made_by = self.made_by(self.step_to_use(), sample.seed)
        if not again and read_made_by(folder / "grid.png") == {**made_by, **self.span(index)}:
            return
        params, step = self.restore()
        keep = max(1, sample.steps // max(sample.strip - 1, 1))
        parts = (slice(None, SHOWN), slice(SHOWN, None))
        first, rest = ((index[part], None if labels is None else labels[part]) for part in parts)
        images, states = self.draw(params, sample.seed, *first, keep)
        if len(rest[0]):
            more, _ = self.draw(params, sample.seed, *rest)
            images = np.concatenate([images, more])
        if not is_main():
            return
        singles = folder / "images"
        shutil.rmtree(singles, ignore_errors=True)
        singles.mkdir(parents=True)
        for number, image, label in zip(
            index, images, [None] * len(index) if labels is None else labels, strict=True
        ):
            what = {"index": int(number), "label": None if label is None else int(label)}
            save_png(singles / f"{number:06d}.png", image, {**made_by, **what})
        span = {**made_by, **self.span(index)}
        few = states[:, :COLUMNS].swapaxes(0, 1)
        strip = tile(few.reshape(-1, *few.shape[2:]), columns=few.shape[1])
        save_png(folder / "trajectory.png", strip, span)
        save_gif(folder / "denoise.gif", states, COLUMNS)
        # Last: it says that all of them are there.
        save_png(folder / "grid.png", tile(images, COLUMNS), span)
        print(f"{len(index)} samples of step {step} are in {folder}")

    # Evaluation

    def evaluate(self, again: bool) -> None:
        """Measures `evaluate.num_samples` samples; writes `result.json` and `report.md`."""
        path = self.workdir / "result.json"
        settings, dataset = self.config.evaluate, self.parts.dataset
        lengths = evaluated(self.config)
        passport = {
            **self.made_by(self.step_to_use(), settings.seed),
            "num_samples": settings.num_samples,
            "likelihood": dict(settings.likelihood),
        }
        if lengths:  # each figure says its own
            del passport["ema"]
            passport["ema_lengths"] = [float(length) for length in lengths]
        if not again and report.has_passport(path, passport):
            print(f"evaluated already: {self.workdir / 'report.md'}")
            return
        state = self.restored_state()
        step = int(state.step)
        index = np.arange(settings.num_samples)
        extractor, wanted, labels = None, None, self.labels(index)
        if dataset.num_classes:
            extractor = get_extractor(dataset, cache_dir() / "extractors", print)
        if labels is not None and self.config.sample.labels != "none":
            _, train_labels = arrays(dataset.train)
            wanted = proportional_labels(train_labels, dataset.num_classes, settings.num_samples)
            labels = wanted
        features = cache_dir() / "features"
        measure = Evaluation(dataset, extractor, settings.bootstrap, features)
        result: Result = {}
        seconds = 0.0
        for name in lengths or [self.ema]:
            params = self.averaged(state, name)
            about = passport
            if lengths:
                print(f"EMA length {name}")
                about = {**passport, **self.snapshots.passport(name, step)}
            began = time.monotonic()
            images, _ = self.draw(params, settings.seed, index, labels)
            seconds += time.monotonic() - began
            found = measure(images, wanted, about)
            if settings.likelihood.num_images:
                found |= self.likelihood(params, about)
            result |= {key + report.suffix(entry): entry for key, entry in found.items()}
        if not is_main():
            return
        result |= measure.heldout(passport)
        self.report(result, step, seconds)
        report.write_result(path, result)  # last: it says that all is there
        print(report.result_tables(result))
        print(f"report: {self.workdir / 'report.md'}")

    def likelihood(self, params: Any, passport: Mapping[str, Any]) -> Result:
        """Bits per dimension, as `evaluate.likelihood` says."""
        learned, settings = self.config.objective.learned_variance, self.config.evaluate
        return likelihood(
            self.generator,
            params,
            self.parts.dataset,
            **settings.likelihood,
            variance="learned" if learned else self.config.sample.ancestral.variance,
            seed=settings.seed,
            batch_size=self.config.sample.batch_size,
            passport=passport,
        )

    def report(self, result: Mapping[str, Any], step: int, seconds: float) -> None:
        """Writes `report.md` beside the pictures."""
        config = self.config
        curves = report.plot_curves(self.workdir / "metrics.jsonl", self.workdir / "curves.png")
        state = self.abstract_state()
        images, made_by = step * config.train.batch_size, self.made_by(step, 0)
        epochs = images / len(self.parts.dataset.train)
        averages = self.snapshots.describe(self.ema)
        if lengths := evaluated(config):
            averages = f"by length ({', '.join(lengths)}), in the pictures {averages}"
        where = environment()
        facts = {
            "data": f"{config.data.name}, {len(self.parts.dataset.train):,} training images",
            "network": f"{config.model.name}, {self.cost(state)}",
            "process": f"{config.schedule.name} schedule, {config.objective.prediction} prediction",
            "training": f"{step:,} steps of {config.train.batch_size} images, {epochs:,.0f} epochs"
            + (f", {curves:,.0f} s" if curves else ""),
            "sampling": f"{made_by['sampler']}, {config.sample.steps} steps of "
            f"{self.generator.sampler.evaluations} evaluation(s), grid {made_by['grid']}, "
            f"guidance {config.sample.guidance_scale}, EMA {averages}; "
            f"{config.evaluate.num_samples:,} samples in {seconds:.1f} s, compilation included",
            "device": where["device"],
            "versions": ", ".join(f"{name} {v}" for name, v in where["versions"].items()),
            "commit": where["commit"],
            "config": f"`{config_hash(config)}`, resolved in [config.json](config.json)",
        }
        pictures = [
            ("samples/grid.png", "Samples, asked for by class: one column for each, in order"),
            ("samples/trajectory.png", "From noise on the left to the picture on the right"),
            ("samples/denoise.gif", "The same for all, as an animation"),
            ("curves.png", "Loss in training, and on held-out images by noise level"),
        ]
        title = f"{self.workdir.name}: {config.data.name}"
        report.write_report(self.workdir / "report.md", title, result, facts, pictures, [command()])
