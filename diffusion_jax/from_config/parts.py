"""From a config to all of its parts, cheapest checks first."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from diffusion_jax.data import Dataset, describe_dataset, load_dataset, without_images
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.from_config.averages import make_averages
from diffusion_jax.from_config.checks import check_numbers
from diffusion_jax.from_config.choices import ConfigError, check_known, lookup
from diffusion_jax.from_config.guidance import make_guide
from diffusion_jax.from_config.images import NOTHING, make_image_condition
from diffusion_jax.from_config.network import CONTRASTIVE, check_network, make_network
from diffusion_jax.from_config.process import make_contrastive, make_objective
from diffusion_jax.from_config.sampling import check_times, make_sampler, make_times
from diffusion_jax.from_config.text import make_reader
from diffusion_jax.generation.generator import Generator, Guide
from diffusion_jax.models.uncertainty import Uncertainty
from diffusion_jax.objectives.contrastive import ContrastiveLoss
from diffusion_jax.objectives.gaussian import GaussianLoss
from diffusion_jax.text import Reader
from diffusion_jax.training.ema import Average
from diffusion_jax.training.optimizer import DECAYS, learning_rate_schedule, make_optimizer
from diffusion_jax.training.parallel import Parallel, Replicated, Sharded
from diffusion_jax.training.step import TrainStep, make_train_step
from diffusion_jax.types import Array, Condition, Key, Params, Sampler

MEMORY = {"auto": None, "always": True, "never": False}


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What a config means.

    Attributes:
        dataset: images.
        init: key -> parameters.
        apply: the network, `(params, *inputs) -> outputs`.
        loss: the training objective.
        heldout_loss: the same without dropout of any kind, given pictures as samples are.
        optimizer: with its learning rate schedule inside.
        averages: of the parameters, by name.
        draws: from parameters to samples; None for networks that do not draw.
        cond: conditioning of one sample, arrays `[1, ...]`, off: what the network reads.
        reader: of texts; None where there are none to be read.
        condition: from pictures to what samples are given of them; None where that is nothing.
        frozen: parameters that are not trained, by name.
    """

    dataset: Dataset
    init: Callable[[Key], Params]
    apply: Callable[..., Any]
    loss: GaussianLoss | ContrastiveLoss
    heldout_loss: GaussianLoss | ContrastiveLoss
    optimizer: optax.GradientTransformation
    averages: dict[str, Average]
    draws: Generator | None
    cond: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    reader: Reader | None = None
    condition: Condition | None = None
    frozen: Mapping[str, Params] = dataclasses.field(default_factory=dict)

    @property
    def generator(self) -> Generator:
        """From parameters to samples.

        Raises:
            ConfigError: there are none.
        """
        if self.draws is None:
            raise ConfigError(
                f"objective.name={CONTRASTIVE!r} trains a network that compares pictures with "
                "texts and draws none: it has --mode train, evaluate and plan"
            )
        return self.draws

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Of the network, for one image."""
        time = (jnp.zeros(1),) if self.draws else ()
        return jnp.zeros((1, *self.dataset.image_shape)), *time, self.cond


class _Process(NamedTuple):
    """What there is of denoising before the network."""

    objective: GaussianLoss
    sampler: Sampler
    times: Array
    guide: Guide


def build(config: ConfigDict, dataset: Dataset | None = None, devices: int | None = None) -> Parts:
    """Makes every part, cheapest checks first.

    Args:
        config: of the run.
        dataset: one that is loaded already, or only described.
        devices: how many the run is for; None: those that are there.

    Raises:
        ConfigError: a setting is not possible.
        DataError: the data is not there, or not as the config says.
    """
    check_network(config)
    process = None if config.objective.name == CONTRASTIVE else _make_process(config)
    objective: Any = process.objective if process else make_contrastive(config)
    optimizer, averages = _optimizer(config), make_averages(config)
    check_numbers(config, jax.device_count() if devices is None else devices)

    dataset = dataset or _dataset(config)
    if config.train.keep_best and len(dataset.train) and not len(dataset.heldout):
        raise ConfigError(f"train.keep_best: {dataset.name} has no held-out images to go by")
    reader = make_reader(config, dataset)
    given = NOTHING
    if process:
        schedule = process.objective.schedule
        given = make_image_condition(config, schedule, dataset.image_shape)
    network = make_network(config, dataset, reader, given)

    cond: dict[str, np.ndarray] = {**(reader.none if reader else {}), **given.none}
    if dataset.num_classes:
        cond = {"label": np.full(1, -1, np.int32), **cond}

    def apply(params: Params, *inputs: Any) -> Any:
        return network.apply({"params": params}, *inputs)

    def apply_train(params: Params, *inputs: Any) -> Any:
        *first, key = inputs
        return network.apply({"params": params}, *first, train=True, rngs={"dropout": key})

    def init(key: Key) -> Params:
        x, t = jnp.zeros((1, *dataset.image_shape)), jnp.zeros(1)
        inputs = (x, t) if process else (x,)
        params = network.init(key, *inputs, jax.tree.map(jnp.asarray, cond))["params"]
        if process and process.objective.uncertainty:
            params = {**params, "uncertainty": Uncertainty().init(key, t)["params"]}
        if process and process.objective.time_law:
            params = {**params, "time_law": jnp.zeros(time_sampling.PARTS)}
        return params

    try:
        jax.eval_shape(init, jax.random.key(0))
    except ValueError as error:
        raise ConfigError(str(error)) from error

    loss = dataclasses.replace(objective, apply=apply_train)
    if given.train:
        loss = dataclasses.replace(loss, condition=given.train)
    heldout_loss = dataclasses.replace(
        objective.without_dropout, apply=lambda params, *inputs: apply(params, *inputs[:-1])
    )
    generator = process and Generator(
        apply=apply,
        schedule=process.objective.schedule,
        prediction=process.objective.prediction,
        sampler=process.sampler,
        times=process.times,
        shape=dataset.image_shape,
        guide=process.guide,
        group=max(config.sample.guidance.flock.size, 1),
        learned_variance=config.objective.learned_variance,
    )
    return Parts(
        *(dataset, init, apply, loss, heldout_loss, optimizer, averages, generator, cond, reader),
        condition=given.sample,
    )


def _make_process(config: ConfigDict) -> _Process:
    objective = make_objective(config)
    schedule = objective.schedule
    times, sampler = make_times(config, schedule), make_sampler(config, schedule)
    check_times(config, schedule)
    return _Process(objective, sampler, times, make_guide(config, schedule))


def _optimizer(config: ConfigDict) -> optax.GradientTransformation:
    settings = config.optimizer
    check_known(settings.decay, DECAYS, "optimizer.decay")
    rate = learning_rate_schedule(
        settings.learning_rate, config.train.steps, settings.warmup_steps, settings.decay
    )
    options = settings.get(settings.name, ConfigDict())
    try:
        return make_optimizer(settings.name, rate, settings.clip_norm, **options)
    except (AttributeError, TypeError) as error:
        known = [n for n in (*dir(optax), *dir(optax.contrib)) if n.islower() and n[0] != "_"]
        near = ", ".join(difflib.get_close_matches(settings.name, known, 3))
        raise ConfigError(
            f"optimizer.name={settings.name!r} is no optimizer of optax or optax.contrib with the "
            f"settings {dict(options)}; close: {near or 'adam, adamw, sgd, lion'}"
        ) from error


def make_step(config: ConfigDict, parts: Parts, axis_name: str | None = None) -> TrainStep:
    """The train step, which takes its means over the mapped axis `axis_name` if there is one."""
    return make_train_step(
        parts.loss,
        parts.optimizer,
        parts.averages,
        config.train.accumulate,
        axis_name,
        config.train.max_grad_norm,
    )


def make_parallel(config: ConfigDict) -> Parallel:
    """How the train step runs over the devices that are there."""
    settings = config.parallel
    if settings.strategy == "replicated":
        return Replicated()
    return Sharded(settings.fsdp, settings.model)


def split_dataset(config: ConfigDict, split: str) -> Dataset:
    """The data with another held-out split.

    Raises:
        DataError: there is none.
    """
    return _dataset(config, split)


def _dataset(config: ConfigDict, heldout_split: str | None = None) -> Dataset:
    data = config.data
    return load_dataset(
        data.name,
        data_dir=data.dir,
        manual_dir=data.manual_dir,
        image_size=data.image_size,
        train_split=data.train_split,
        heldout_split=data.heldout_split if heldout_split is None else heldout_split,
        heldout_fraction=data.heldout_fraction,
        caption_key=data.caption_key,
        memory=lookup(MEMORY, data.in_memory, "data.in_memory"),
    )


def planned_dataset(config: ConfigDict) -> Dataset:
    """The data, or if it is not prepared yet, or `plan.shape` says another, its shape alone.

    Raises:
        ConfigError: `plan.shape` is none.
        DataError: as for the data itself.
    """
    data, shape = config.data, tuple(config.plan.shape)
    if shape and (len(shape) != 3 or min(shape) < 1):
        raise ConfigError(f"plan.shape={shape} must be a height, a width and a number of channels")
    found = describe_dataset(
        data.name, data.dir, data.manual_dir, data.image_size, data.caption_key
    )
    if not shape:
        return found or _dataset(config)
    return without_images(found or _dataset(config), shape)
