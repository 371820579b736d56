"""One config in one workdir: its state, its averages and its samples."""

import dataclasses
import functools
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import to_uint8
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.from_config import (
    CONTRASTIVE,
    OPTIMISED,
    Config,
    ConfigError,
    Parts,
    build,
    config_hash,
    grids_to_start_from,
    make_guide,
    make_parallel,
    sample_average,
)
from diffusion_jax.generation.generator import Beside, Generator, Guide, Wanted
from diffusion_jax.generation.grid_search import Found, cached_times, optimise_times
from diffusion_jax.models.flops import count_flops
from diffusion_jax.run.conditions import TOWARDS, Conditions
from diffusion_jax.run.provenance import read_config
from diffusion_jax.system.devices import is_main
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.ema import never_moved
from diffusion_jax.training.snapshots import Snapshots
from diffusion_jax.training.state import TrainState, abstract_state


def command() -> str:
    """The command line that started this run."""
    return shlex.join(["python", *sys.argv])


@dataclasses.dataclass(eq=False)
class Job:
    """A config, where its run lives, the parts it means, and what all stages ask of them."""

    config: Config
    workdir: Path
    parts: Parts

    def __post_init__(self) -> None:
        self.conditions = Conditions(self.config, self.parts, lambda: self.judge)
        self.conditions.labels(np.arange(1))  # refuses bad ones before any time is spent
        self.init_key, self.train_key = jax.random.split(jax.random.key(self.config.seed))
        kept = self.config.train
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints", kept.keep_checkpoints, kept.keep_every, kept.keep_best
        )
        self.snapshots = Snapshots(self.workdir / "snapshots", self.parts.averages)
        self.ema = sample_average(self.config)
        self.networks: dict[str, Any] = {}  # parameters of what guides, once they are there
        self.parallel = make_parallel(self.config)

    @functools.cached_property
    def generator(self) -> Generator:
        """From parameters to samples; replaced once there is what it has to wait for.

        Raises:
            ConfigError: the network draws none.
        """
        generator = self.parts.generator
        if self.judge is None:
            return generator
        self.networks["judge"] = self.judge.params
        guide = make_guide(self.config, generator.schedule, look=self.judge.look)
        return dataclasses.replace(generator, guide=guide)

    @functools.cached_property
    def judge(self) -> Judge | None:
        """Of the likeness of pictures and texts, for guidance by it."""
        key = "sample.guidance.likeness.judge"
        folder = self.config.sample.guidance.likeness.judge
        return self.load_judge(folder, f"{key}={folder!r}") if folder else None

    def load_judge(self, folder: str, what: str) -> Judge:
        """The dual encoder that was trained in a folder, for this data.

        Raises:
            ConfigError: there is none, or it is for other pictures; says `what` asked for it.
        """
        config = read_config(Path(folder), self.config, what)
        data, own = config.data, self.config.data
        if config.objective.name != CONTRASTIVE:
            raise ConfigError(f"{what}: it is no dual encoder, as configs/emoji_clip.py trains one")
        if (data.name, data.image_size) != (own.name, own.image_size):
            raise ConfigError(
                f"{what} judges {data.name} of data.image_size={data.image_size}, not {own.name} "
                f"of {own.image_size}"
            )
        config.sample.guidance.likeness.judge = ""
        return Job(config, Path(folder), build(config, self.parts.dataset)).as_judge()

    def as_judge(self) -> Judge:
        """The dual encoder of this run, as it is at the checkpoint that is asked for."""
        params, step = self.restore()
        ema = self.snapshots.describe(self.ema)
        words = f"{config_hash(self.config)} at step {step}, EMA {ema}"
        return Judge(
            f"{self.parts.dataset.name}_clip",
            words,
            self.parts.apply,
            params,
            self.conditions.read,
            self.parts.cond,
            self.parts.dataset.image_shape,
        )

    def abstract_state(self) -> TrainState:
        """Shapes and types of the state, and where it lies."""
        parts = self.parts
        shapes = abstract_state(parts.init, parts.optimizer, parts.averages)
        return jax.tree.map(
            lambda a, sharding: a.update(sharding=sharding), shapes, self.parallel.shardings(shapes)
        )

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
        if self.config.sample.guidance.worse and "worse" not in self.networks:
            guide, self.networks["worse"] = self.worse_model()
            self.generator = dataclasses.replace(self.generator, guide=guide)
        if self.config.sample.grid == OPTIMISED:
            times = self.optimised_times(params, step, name)
            self.generator = dataclasses.replace(self.generator, times=times)
        return params

    def worse_model(self) -> tuple[Guide, Any]:
        """Guidance by the model that `sample.guidance.worse` names, and its parameters."""
        words: str = self.config.sample.guidance.worse
        folder, _, step = words.partition("@")
        workdir = Path(folder) if folder else self.workdir
        what = f"sample.guidance.worse={words!r}"
        if step and not step.isdecimal():
            raise ConfigError(f"{what}: {step!r} is not the step of a checkpoint")
        config = read_config(workdir, self.config, what)
        config.sample.guidance.worse = config.sample.guidance.likeness.judge = ""
        config.sample.checkpoint = int(step or -1)
        schedule = {**self.config.schedule} == {**config.schedule}
        other = Job(config, workdir, build(config, self.parts.dataset))
        if not schedule or other.generator.shape != self.generator.shape:
            raise ConfigError(f"{what} must be of the same schedule and the same data")
        params, _ = other.restore()
        look = self.judge.look if self.judge else None
        guide = make_guide(self.config, self.generator.schedule, other.generator.denoiser, look)
        return guide, params

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
        made_by = {**self.made_by(step, self.config.seed, name), "labels": settings.labels}

        def search() -> Found:
            print(f"searching the times of {settings.steps} steps of {settings.sampler}")
            return optimise_times(
                self.generator,
                params,
                jax.random.fold_in(self.init_key, 1),
                jax.tree.map(jnp.asarray, self.wanted(index, self.conditions.cond(index))),
                grids_to_start_from(self.config, self.parts.generator.schedule),
                settings.optimised.iterations,
            )

        return cached_times(self.workdir / "grids", made_by, search, print)

    def made_by(self, step: int | None, seed: int, name: str = "") -> dict[str, Any]:
        """What determines a sample, but for its number and label; `name` of the average."""
        sample = self.config.sample

        def words(name: str, within: Config = sample) -> str:
            """A choice with its settings."""
            group = within.get(name, {})
            settings = [
                words(key, group) if isinstance(value, Config) else f"{key}={value}"
                for key, value in group.items()
            ]
            return f"{name}({', '.join(settings)})"

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
            "guidance": words("guidance"),
            "clip": sample.clip,
            **self.conditions.made_by(),
        }

    def draw(
        self, params: Any, seed: int, index: np.ndarray, cond: dict[str, np.ndarray], keep: int = 0
    ) -> Any:
        """Samples number `index` of `seed` as uint8, and kept states."""
        sample = self.config.sample
        return tuple(
            None if x is None else to_uint8(x)
            for x in self.generator(
                params,
                seed,
                self.wanted(index, cond),
                batch_size=sample.batch_size,
                keep_every=keep,
            )
        )

    def wanted(self, index: np.ndarray, cond: dict[str, np.ndarray]) -> Wanted:
        """Samples number `index` with their conditioning, guided as configured."""
        sample = self.config.sample

        def of_all(text: str) -> Any:
            found = self.conditions.read([text] * len(index))
            return {name: value for name, value in found.items() if name != TOWARDS}

        against = of_all(sample.negative) if sample.negative else None
        others = tuple(of_all(text) for text, _ in sample.compose)
        cond = dict(cond)
        beside = Beside(against, others, cond.pop(TOWARDS, None), self.networks)
        return Wanted(index.astype(np.int32), cond, np.float32(sample.guidance_scale), beside)

    def span(self, index: np.ndarray) -> dict[str, Any]:
        """What a picture of many samples says of their numbers and labels."""
        return {
            "labels": self.config.sample.labels,
            "index": [int(index[0]), int(index[-1])],
        }

    def cost(self, state: TrainState) -> str:
        """Size and cost of the network in words."""
        apply, inputs = self.parts.apply, self.parts.inputs
        flops = count_flops(lambda params: apply(params, *inputs), state.params)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        return f"{parameters:,} parameters, {flops / 1e9:.3g} GFLOP per image and evaluation"
