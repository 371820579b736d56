"""A run in its folder, and its trained model."""

import dataclasses
import functools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset, kept_dataset
from diffusion_jax.data.sources import content_hash
from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.from_config import Config, ConfigError, Parts, build, candidates, sample_average
from diffusion_jax.from_config.choices import group_of, keyed, named, override
from diffusion_jax.from_config.codecs import weights_digests
from diffusion_jax.from_config.data import make_dataset
from diffusion_jax.from_config.identity import (
    Identity,
    check_data,
    check_frozen,
    config_hash,
    folder_and_step,
    read_config,
)
from diffusion_jax.from_config.parts import make_parallel
from diffusion_jax.from_config.published import network_params, weights_source
from diffusion_jax.from_config.sampling import OPTIMISED, grids_to_start_from
from diffusion_jax.from_config.starts import STARTS
from diffusion_jax.from_config.task import BASE
from diffusion_jax.from_config.token_guidance import CLASSIFIER, JUDGE, check_classifier, is_on
from diffusion_jax.generation.conditions import Asked, Conditions
from diffusion_jax.generation.generator import Generator, Request, check_finite
from diffusion_jax.generation.grid_search import Found, cached_times, optimise_times
from diffusion_jax.generation.labels import as_cond
from diffusion_jax.models.flops import count_flops
from diffusion_jax.system.arguments import check
from diffusion_jax.system.command_line import program
from diffusion_jax.system.devices import all_devices, everywhere, is_main, on_devices, put
from diffusion_jax.system.files import path_of
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.texts import shown
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.ema import never_moved
from diffusion_jax.training.snapshots import Snapshots
from diffusion_jax.training.state import TrainState, abstract_state
from diffusion_jax.types import Array, Params

DRAWN = {"num": "[1, inf)", "seed": "[0, 4294967295]", "first": "[0, 2147483648)"}
"""Allowed arguments of `Trained.draw`."""


def command() -> str:
    """The command line that started this run."""
    return shown(shlex.join(["python", *program(), *sys.argv[1:]]))


class Drawn(NamedTuple):
    """Samples as stored."""

    items: np.ndarray  # `[N, ...]`
    states: np.ndarray | None  # every so many of them on the way, `[K, N, ...]`
    log_weights: np.ndarray | None  # `[N]`, up to a constant; None for samples without weights


class Run:
    """A config in a folder: the training there, and what all stages need.

    Raises:
        ConfigError: a model that guides is of another kind, or for other data.

    Attributes:
        judge: of guidance by likeness, if configured.
        classifier: of noisy tokens, that guides, if configured.
        conditions: conditioning of samples.
        generator: from parameters to samples; None for a network that cannot sample.
        frozen: parameters that a request needs in addition to those of the network.
        digests: short hashes of those that the task needs, by name.
        average: name of the average of parameters to sample with.
    """

    def __init__(self, config: Config, workdir: Path, parts: Parts) -> None:
        self.config, self.workdir, self.parts = config, workdir, parts
        self.judge = open_judge("sample.guidance.likeness", config, parts)
        self.classifier = open_classifier(config, parts)
        sample, task = config.sample, parts.task
        towards = self.judge.texts if self.judge else None
        texts = [text for text, _ in sample.compose]
        self.conditions = Conditions(
            *(parts.dataset, task.reader, task.condition, towards),
            Asked(sample.labels, sample.prompts, sample.negative, texts),
            sample.batch_size,
            task.generator.codec if task.generator else None,
        )
        with keyed("sample"):
            self.conditions.labels(np.arange(1))  # raises early if they are wrong
        self.init_key, self.train_key = jax.random.split(make_key(config.seed))
        kept = config.train
        self.checkpoints = Checkpoints(
            workdir / "checkpoints", kept.keep_checkpoints, kept.keep_every, kept.keep_best
        )
        self.snapshots = Snapshots(workdir / "snapshots", parts.averages)
        self.average = sample_average(config)
        self.parallel = make_parallel(config)
        self.generator = task.generator
        loaded = {name: params.load() for name, params in task.frozen.items()}
        self.digests = {n: content_hash(*jax.tree.leaves(p)) for n, p in loaded.items()}
        # As training needs them: of what is cut over devices no device has the whole beside it.
        self.frozen = jax.tree.map(put, loaded, self.parallel.shardings(loaded))
        check_frozen(self.digests, workdir)
        guides = {"judge": self.judge, CLASSIFIER: self.classifier}
        if self.generator and any(guides.values()):
            self.generator = self._guided(self.generator)
            self.frozen |= {name: model.params for name, model in guides.items() if model}

    def _guided(self, generator: Generator, worse: "Trained | None" = None) -> Generator:
        """The generator, guided by the configured models."""
        models: dict[str, Any] = {}
        if worse:
            models["worse"] = worse.draws.denoiser
        if self.judge:
            models["look"] = self.judge.look
        if self.classifier:
            models["classify"] = self.classifier.run.parts.task.classifier
        guide = self.parts.task.guide
        assert guide is not None  # as there is a generator
        return dataclasses.replace(generator, guidance=guide(**models))

    @functools.cached_property
    def changes(self) -> list[str]:
        """How the data have changed since the training, if there was one.

        Raises:
            ConfigError: they have, and that is not allowed.
        """
        if self.checkpoints.latest() is None:
            return []
        return check_data(self.config, self.parts.dataset, self.workdir)

    def abstract_state(self) -> TrainState:
        """Shapes, types and sharding of the state."""
        parts = self.parts
        shapes = abstract_state(parts.task.shapes, parts.optimizer, parts.averages)
        return jax.tree.map(
            lambda a, sharding: a.update(sharding=sharding), shapes, self.parallel.shardings(shapes)
        )

    def step_to_use(self) -> int | None:
        """Step of the checkpoint that `sample.checkpoint` names; None if there is none yet."""
        step: int = self.config.sample.checkpoint
        return self.checkpoints.latest() if step < 0 else step

    @property
    def published(self) -> bool:
        """Whether the network has its published weights, as it has not been trained here."""
        trained_here = self.parts.task.adapter or self.step_to_use() is not None
        return bool(weights_source(self.config)) and not trained_here

    @functools.cached_property
    def weights(self) -> dict[str, str]:
        """SHA-256 of the files of published weights by part, if there are any."""
        return weights_digests(self.config)

    def restored_state(self) -> TrainState:
        """The state of that checkpoint."""
        state: TrainState = self.checkpoints.restore(self.abstract_state(), self.step_to_use())[0]
        return state

    def preview(self, state: TrainState) -> "Trained":
        """The model at a step of training, without worse model and search of times."""
        params = self._whole(self.snapshots.average(state, self.average))
        return Trained(self, params, int(state.step), self.average, self.generator, self._beside)

    def _whole(self, params: Params) -> Params:
        return self.parts.task.whole(params, self.frozen)

    @property
    def _beside(self) -> dict[str, Params]:
        """The frozen parameters that are not part of the network."""
        return {name: params for name, params in self.frozen.items() if name != BASE}

    def learned(self, state: TrainState | None = None, average: str = "") -> tuple[Params, int]:
        """What has been trained, by default up to the checkpoint, in an average; and its step."""
        if state is None and self.published:
            task, where = self.parts.task, everywhere(all_devices())
            return network_params(self.config, task.shapes, task.sizes, where), 0
        state = self.restored_state() if state is None else state
        return self.snapshots.average(state, average or self.average), int(state.step)

    def trained(self, state: TrainState | None = None, average: str = "") -> "Trained":
        """The configured model at a state, by default that of the checkpoint.

        Warns of averages unfit to sample with; searches for the best time grid if configured.
        """
        average = average or self.average
        params, step = self.learned(state, average)
        unfit = self.snapshots.unfit(average, step)
        if step and never_moved(params, self.parts.task.init, self.init_key):
            unfit.append(
                f"what is sampled with (EMA: {self.snapshots.describe(average)}) has never moved: "
                f"after {step:,} steps it still is the initial parameters"
            )
        for warning in unfit if is_main() else ():
            print(f"warning: {warning}", file=sys.stderr)
        params = on_devices(self._whole(params))
        generator, frozen = self.generator, self._beside
        if generator and self.config.sample.guidance.worse:
            worse = worse_model(self)
            generator = self._guided(generator, worse)
            frozen = {**frozen, "worse": worse.params}
        if generator and (num := candidates.candidates_of(self.config)) > 1:
            law = second_law(self)
            generator = candidates.with_candidates(generator, law.draws.apply, num)
            frozen = {**frozen, candidates.LAW: law.params}
        found = Trained(self, params, step, average, generator, frozen)
        if generator and self.config.sample.grid == OPTIMISED:
            generator = dataclasses.replace(generator, times=found.best_times())
            found = dataclasses.replace(found, generator=generator)
        return found

    def made_by(self, step: int | None, seed: int, average: str = "") -> dict[str, Any]:
        """All that determines a sample, except its number and label."""
        sample, generator = self.config.sample, self.generator
        limit = generator.codec.limit if generator else None
        reader, picture = self.parts.task.reader, self.config.image_condition.name
        given: dict[str, Any] = {}
        if self.conditions.given:
            given["given"] = f"{picture} of {self.conditions.shown} pictures"
        if picture == "low_resolution":
            given["noise"] = sample.upscale.noise
        if tile := self.config.get("codec", {}).get("autoencoder", {}).get("tile", 0):
            given["decoded"] = f"in tiles of {tile} latents"
        if generator and generator.start.words:
            given["start"] = generator.start.words
        if self.judge:
            given["judge"] = self.judge.words
        if self.classifier:
            given[CLASSIFIER] = self.classifier.words
        if reader or self.judge:
            given |= {
                "text": reader.identity if reader else "none",
                "prompts": list(sample.prompts) or "names of held-out images",
                "negative": sample.negative,
                "compose": [list(pair) for pair in sample.compose],
            }

        if reader and reader.empty:
            given["unconditional"] = "the empty text"

        def words(name: str, within: Config = sample) -> str:
            """A choice with its settings."""
            group = within.get(name, {})
            settings = [
                words(key, group) if isinstance(value, Config) else f"{key}={value}"
                for key, value in group.items()
            ]
            return f"{name}({', '.join(settings)})"

        if generator and generator.guidance.log_weights:
            given["particles"] = words("particles")
        return {
            "config": config_hash(self.config),
            "checkpoint": step,
            **({"weights": self.weights} if self.weights else {}),
            "seed": seed,
            "ema": self.snapshots.describe(average or self.average),
            "sampler": words(sample.sampler),
            "steps": sample.steps,
            "grid": words(sample.grid) + words("restart") * (sample.restart.repeats > 0),
            "t_max": sample.t_max,
            "guidance_scale": sample.guidance_scale,
            "guidance": words("guidance"),
            "clip": sample.clip if sample.clip >= 0 else limit or 0.0,
            **candidates.described(self.config),
            **given,
        }

    def span(self, index: np.ndarray, cond: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Passport of an image of many samples: their numbers and, if they have any, labels."""
        labels = {"labels": self.config.sample.labels} if "label" in cond else {}
        return {**labels, "index": [int(index[0]), int(index[-1])]}

    def cost(self, state: TrainState) -> str:
        """Size and cost of the network in words."""
        task = self.parts.task
        params = jax.eval_shape(task.whole, state.params, self.frozen)
        flops = count_flops(lambda params: task.apply(params, *task.inputs), params)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        noun = self.parts.dataset.kind.noun.removesuffix("s")
        return f"{parameters:,} parameters, {flops / 1e9:.3g} GFLOP per {noun} and evaluation"


def suspects(config: Config) -> list[str]:
    """The settings that may make samples not finite, the likeliest first."""
    sample, dtype = config.sample, config.model.dtype
    named = [name for name in ("guidance_scale", "t_max") if sample[name] != 1]
    found = [f"sample.{name}={sample[name]!r}" for name in (*named, "sampler", "steps", "grid")]
    return [f"half precision, model.dtype={dtype!r}"] * (dtype != "float32") + found


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model: averaged parameters at a step, and how to sample."""

    run: Run  # that trained it
    params: Params
    step: int  # of training
    average: str  # its name
    generator: Generator | None  # None for a network that cannot sample
    frozen: Mapping[str, Params]  # further parameters that a request needs

    @property
    def draws(self) -> Generator:
        """The generator.

        Raises:
            ConfigError: there is none.
        """
        return self.generator or self.run.parts.generator  # whose error explains why there is none

    def replace(self, **parts: Any) -> "Trained":
        """The same model with other fields of its `Generator`, such as sampler, times or guidance.

        Raises:
            ConfigError: the network cannot sample.
            TypeError: there is no such field.
        """
        return dataclasses.replace(self, generator=dataclasses.replace(self.draws, **parts))

    def draw(
        self,
        num: int = 1,
        *,
        labels: int | Sequence[int] | None = None,
        prompts: str | Sequence[str] | None = None,
        seed: int = 0,
        first: int = 0,
    ) -> np.ndarray:
        """Samples as stored, such as images uint8 `[num, H, W, C]`.

        Args:
            num: of samples; sample i does not depend on it.
            labels: one for all, or several used in turn; None: as configured.
            prompts: texts, likewise.
            seed: of the noise.
            first: number of the first sample.

        Raises:
            ConfigError: the network cannot sample, takes no texts, has no such class, or gives its
                samples weights.
            SamplingError: some are not finite.
            ValueError: a number is out of range.
        """
        check(DRAWN, num=num, seed=seed, first=first)
        index, classes = first + np.arange(num), self.run.parts.dataset.num_classes
        cond = self.run.conditions.cond(index)
        if labels is not None:
            each = np.resize(np.asarray(labels, np.int32), num)
            if not classes or np.any((each < -1) | (each >= classes)):
                raise ConfigError(f"labels={labels}: there are {classes} classes; -1 is none")
            cond |= as_cond(each)
        if prompts is not None:
            if self.run.parts.task.reader is None and self.run.judge is None:
                raise ConfigError(f"prompts={prompts!r} needs a network that reads texts")
            texts = [prompts] if isinstance(prompts, str) else list(prompts)
            cond |= self.run.conditions.read([texts[i % len(texts)] for i in range(num)])
        return self.items(seed, index, cond)[0]

    def items(
        self, seed: int, index: np.ndarray, cond: Mapping[str, np.ndarray], keep: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples number `index` of `seed` as stored, and every `keep`-th state `[K, N, ...]`.

        Raises:
            ConfigError: they have weights, as `drawn` gives them.
            SamplingError: some are not finite.
        """
        if self.draws.guidance.log_weights:
            raise ConfigError(
                f"sample.particles.size={self.draws.guidance.group}: particles are samples only "
                "with their weights, which --mode sample saves and Trained.drawn returns"
            )
        found = self.drawn(seed, index, cond, keep)
        return found.items, found.states

    def drawn(
        self, seed: int, index: np.ndarray, cond: Mapping[str, np.ndarray], keep: int = 0
    ) -> Drawn:
        """As `items`, with the weights that samples may have.

        Raises:
            SamplingError: some are not finite.
        """
        request, size = self.request(index, cond), self.run.config.sample.batch_size
        generator, weigh = self.draws, self.draws.guidance.log_weights
        draw: Any = generator.with_state if weigh else generator
        x, states, *state = draw(self.params, seed, request, batch_size=size, keep_every=keep)
        return Drawn(
            self.encoded(x, index),
            None if states is None else self.run.parts.dataset.kind.encode(states),
            np.asarray(weigh(*state)) if weigh else None,
        )

    def encoded(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Samples `x` `[N, ...]` with the numbers `index` `[N]`, as stored.

        Raises:
            SamplingError: some are not finite, which stored images would not show.
        """
        causes = suspects(self.run.config)
        check_finite(x, index, self.params, f"step {self.step}", causes)
        return self.run.parts.dataset.kind.encode(x)

    def request(self, index: np.ndarray, cond: Mapping[str, np.ndarray]) -> Request:
        """Samples number `index` with their conditioning, guided as configured."""
        scale = self.run.config.sample.guidance_scale
        return self.run.conditions.request(index, cond, scale, self.frozen)

    def made_by(self, seed: int) -> dict[str, Any]:
        """All that determines a sample, except its number and label."""
        return self.run.made_by(self.step, seed, self.average)

    @property
    def words(self) -> str:
        """Identifies the model in passports of what it guides or judges."""
        average = self.run.snapshots.describe(self.average)
        return f"{config_hash(self.run.config)} at step {self.step}, EMA {average}"

    def as_judge(self) -> Judge:
        """The model as a judge of the likeness of images and texts.

        Raises:
            ConfigError: it is not a dual encoder.
        """
        run, task = self.run, self.run.parts.task
        if task.likeness is None:
            raise ConfigError("it is no dual encoder, as configs/emoji_clip.py trains one")
        name, kind = f"{run.parts.dataset.name}_clip", run.parts.dataset.kind
        return Judge(
            *(name, self.words, task.likeness, self.params, run.conditions.read, task.cond, kind)
        )

    def best_times(self) -> Array:
        """The best time grid for these parameters, searched for once."""
        run, settings = self.run, self.run.config.sample
        index = np.arange(settings.optimised.images)
        made_by = {**self.made_by(run.config.seed), "labels": settings.labels}

        def search() -> Found:
            print(f"searching the times of {settings.steps} steps of {settings.sampler}")
            schedule = gaussian(self.draws.process).schedule
            return optimise_times(
                self.draws,
                self.params,
                jax.random.fold_in(run.init_key, 1),
                jax.tree.map(jnp.asarray, self.request(index, run.conditions.cond(index))),
                grids_to_start_from(run.config, schedule),
                settings.optimised.iterations,
            )

        return cached_times(run.workdir / "grids", made_by, search, print)


def open_run(
    folder: str | Path,
    *,
    step: int = -1,
    average: str = "",
    what: str = "",
    parts: Any = None,
    **sample: Any,
) -> Trained:
    """The model that was trained in a folder.

    Args:
        folder: of the run.
        step: of a checkpoint; -1: the newest.
        average: of the parameters, as `sample.ema`; '': as configured.
        what: setting that names the run, for messages.
        parts: of a run with the same data, which are not loaded again.
        sample: settings of `config.sample` that replace the run's own, such as `sampler="unipc"`,
            `steps=10`, `guidance_scale=3` or `guidance={"interval": (0.2, 0.7)}`.

    Raises:
        ConfigError: there is no such run, or a setting is not possible.
        CheckpointError: there is no such checkpoint.
    """
    what, folder = what or f"open_run({str(folder)!r})", path_of(folder)
    config = read_config(folder, what)
    try:
        own = config.sample
        own.checkpoint, own.ema = step, average or own.ema
        own.guidance.worse = own.guidance.likeness.judge = ""
        if CLASSIFIER in own.guidance:
            own.guidance.classifier.judge = ""
        if "candidates" in own:
            own.candidates.num = 0  # the other run may be gone
        if own.get("start", "normal") not in STARTS:
            own.start = "normal"  # the image may be gone
        own.grid = "uniform" if own.grid == OPTIMISED else own.grid
        override(own, sample, "sample")
        dataset = parts.dataset if parts else data_to_draw(config, folder)
        run = Run(config, folder, build(config, dataset))
    except (AttributeError, KeyError) as error:
        raise ConfigError(f"{what}: {folder}/config.json is of another version: {error}") from error
    return run.trained()


def data_to_draw(config: Config, workdir: Path) -> Dataset | None:
    """The data of the run in `workdir` as recorded there; None without a record.

    They are loaded when an item is first read, with a warning if they have changed.
    """
    identity = Identity.read(workdir)
    if identity is None:
        return None

    def load() -> Dataset:
        dataset = make_dataset(config)
        check_data(config, dataset, workdir, allowed=True)
        return dataset

    return kept_dataset(identity.data, load)


def open_judge(group: str, config: Config, parts: Parts) -> Judge | None:
    """The dual encoder in the folder `judge` of a group of settings; None if that is ''.

    Raises:
        ConfigError: there is none, or it is for other data than the config's.
    """
    folder = group_of(config, group).judge
    if not folder:
        return None
    what = f"{group}.judge={folder!r}"
    theirs, own = read_config(path_of(folder), what).data, config.data
    if (theirs.name, theirs.image_size) != (own.name, own.image_size):
        raise ConfigError(
            f"{what} judges {theirs.name} of data.image_size={theirs.image_size}, not {own.name} "
            f"of {own.image_size}"
        )
    trained = open_run(folder, what=what, parts=parts)
    with named(what):
        return trained.as_judge()


def open_classifier(config: Config, parts: Parts) -> Trained | None:
    """The classifier that `sample.guidance.classifier.judge` names; None if that is off.

    Raises:
        ConfigError: there is none, it is for other data or other noise, or has no such class.
    """
    words = is_on(config).get(JUDGE, "")
    if not words or not parts.task.generator:
        return None
    what, (folder, step) = f"{JUDGE}={words!r}", folder_and_step(words, JUDGE)
    found = open_run(folder, step=step, what=what)
    with named(what):
        theirs = found.run.parts
        check_classifier(config, theirs.task, theirs.dataset, parts.task, parts.dataset)
    return found


def worse_model(run: Run) -> Trained:
    """The model that `sample.guidance.worse` names, FOLDER@STEP.

    Raises:
        ConfigError: there is none, or its schedule or shape differ from the run's.
    """
    words: str = run.config.sample.guidance.worse
    folder, step = folder_and_step(words, "sample.guidance.worse")
    what = f"sample.guidance.worse={words!r}"
    other = open_run(folder or run.workdir, step=step, what=what, parts=run.parts)
    own, theirs = (
        (one.process.schedule, one.codec.shape) for one in (run.parts.generator, other.draws)
    )
    if own != theirs:
        raise ConfigError(f"{what} must be of the same schedule and the same data")
    return other


def second_law(run: Run) -> Trained:
    """The model of texts that `sample.candidates.law` names, FOLDER@STEP, on the data of the run.

    Raises:
        ConfigError: there is none.
    """
    folder, step, what = candidates.law_of(run.config)
    return open_run(folder, step=step, what=what, parts=run.parts)
