"""From a config to all of its parts, with the cheapest checks first."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from diffusion_jax.data import Dataset, Kind
from diffusion_jax.from_config.adapters import adapted, check_adapter
from diffusion_jax.from_config.autoencoder import autoencoder
from diffusion_jax.from_config.averages import make_averages
from diffusion_jax.from_config.candidates import check_law
from diffusion_jax.from_config.checks import check_numbers, check_ranges, gather_of
from diffusion_jax.from_config.choices import ConfigError, check_known, keyed, lookup
from diffusion_jax.from_config.classified import classified
from diffusion_jax.from_config.contrastive import contrastive
from diffusion_jax.from_config.damage import damage
from diffusion_jax.from_config.data import make_dataset
from diffusion_jax.from_config.evaluators import check_metrics
from diffusion_jax.from_config.gaussian import gaussian
from diffusion_jax.from_config.task import Task
from diffusion_jax.from_config.token_families import FAMILIES
from diffusion_jax.from_config.tokens import token_task
from diffusion_jax.generation.generator import Generator
from diffusion_jax.training.ema import Average
from diffusion_jax.training.optimizer import (
    DECAYS,
    check_optimizer,
    learning_rate_schedule,
    make_optimizer,
)
from diffusion_jax.training.parallel import Parallel, Replicated, Sharded
from diffusion_jax.training.state import abstract_state
from diffusion_jax.training.step import TrainStep, make_train_step, of_stored
from diffusion_jax.types import LossFn

TASKS: dict[str, Callable[[ConfigDict], Callable[[Dataset], Task]]] = {
    "gaussian": gaussian,
    "contrastive": contrastive,
    "damage": damage,
    "autoencoder": autoencoder,
    "classified": classified,
    **dict.fromkeys(FAMILIES, token_task),
}
"""By `objective.name`: from a checked config to the function that makes the task."""


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """All parts that a config describes."""

    dataset: Dataset
    task: Task
    optimizer: optax.GradientTransformation  # including its learning rate schedule
    averages: dict[str, Average]  # averages of the parameters, by name

    @property
    def kind(self) -> Kind:
        """Of the items that are trained on."""
        return self.task.trained_on(self.dataset.kind)

    @property
    def loss(self) -> LossFn:
        """The loss of batches of stored items."""
        return of_stored(self.kind.decode, self.task.loss)

    @property
    def generator(self) -> Generator:
        """The generator of samples; a ConfigError if the task draws none."""
        if self.task.generator is None:
            raise ConfigError(self.task.draws_nothing)
        return self.task.generator


def build(config: ConfigDict, dataset: Dataset | None = None, devices: int | None = None) -> Parts:
    """Makes all parts, with the cheapest checks first.

    Args:
        config: config of the run.
        dataset: a data set that is already loaded, or only described.
        devices: number of devices of the run; None: those of this process's JAX.

    Raises:
        ConfigError: a setting cannot work.
        DataError: the data are missing, or not as configured.
    """
    check_ranges(config)
    check_adapter(config)
    make_task = lookup(TASKS, config.objective.name, "objective.name")(config)
    _optimizer(config)  # raises early
    averages = make_averages(config)
    check_numbers(config, jax.device_count() if devices is None else devices)

    dataset = dataset or make_dataset(config)
    splits = dataset.splits
    if config.train.keep_best and len(splits["train"]) and not len(splits["heldout"]):
        raise ConfigError(
            f"train.keep_best needs held-out {dataset.kind.noun}, and {dataset.name} has none"
        )
    task = adapted(config, _traced(make_task(dataset), dataset))
    check_law(config, dataset)
    check_metrics(config, task, dataset)
    optimizer = _optimizer(config, task.rivals)
    try:
        state = abstract_state(task.shapes, optimizer, averages)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with keyed(f"optimizer.name={config.optimizer.name!r}"):
        check_optimizer(optimizer, state.params)
    return Parts(dataset, task, optimizer, averages)


def _traced(task: Task, dataset: Dataset) -> Task:
    """The task, whose network takes the items of the data; a ConfigError if it does not."""
    try:
        _ = task.shapes
    except ValueError as error:
        raise ConfigError(f"{error} (for {dataset.kind.words})") from error
    return task


def _optimizer(config: ConfigDict, rivals: Sequence[str] = ()) -> optax.GradientTransformation:
    """The optimizer, with those of parameter groups, whose settings override the common ones.

    Rivals are groups even if they have no settings of their own.
    """
    common, steps = config.optimizer, config.train.steps
    groups = {}
    for group, own in {**{rival: {} for rival in rivals}, **common.groups}.items():
        key, settings = f"optimizer.groups.{group}", ConfigDict(common.to_dict())
        known = {*common, own.get("name", common.name)} - {"groups"}
        for name in own:
            check_known(name, sorted(known), key)
        settings.update(own)
        groups[group] = _one_optimizer(settings, steps, key)
    return _one_optimizer(common, steps, "optimizer", groups=groups)


def _one_optimizer(
    settings: ConfigDict, steps: int, key: str, **whole: Any
) -> optax.GradientTransformation:
    check_known(settings.decay, DECAYS, f"{key}.decay")
    options = settings.get(settings.name, ConfigDict())
    try:
        with keyed(key):
            rate = learning_rate_schedule(
                settings.learning_rate, steps, settings.warmup_steps, settings.decay
            )
            clip_norm = settings.clip_norm
            return make_optimizer(settings.name, rate, clip_norm, **whole, **options)
    except AttributeError as error:
        known = [n for n in (*dir(optax), *dir(optax.contrib)) if n.islower() and n[0] != "_"]
        near = ", ".join(difflib.get_close_matches(settings.name, known, 3))
        raise ConfigError(
            f"{key}.name={settings.name!r} is not an optimizer of optax or optax.contrib; similar: "
            f"{near or 'adam, adamw, sgd, lion'}"
        ) from error
    except TypeError as error:
        given = f"the settings {dict(options)}" if options else "its own defaults"
        raise ConfigError(f"{key}.name={settings.name!r} with {given}: {error}") from error


def make_step(config: ConfigDict, parts: Parts, axis_name: str | None = None) -> TrainStep:
    """The train step on stored items, averaging over the mapped axis `axis_name` if given."""
    return make_train_step(
        parts.loss,
        parts.optimizer,
        parts.averages,
        config.train.accumulate,
        axis_name,
        config.train.max_grad_norm,
        parts.task.groups,
        config.parallel.gradients or None,
        config.ema.every,
    )


def make_parallel(config: ConfigDict) -> Parallel:
    """How the train step runs on the available devices."""
    settings = config.parallel
    if settings.strategy == "replicated":
        return Replicated()
    return Sharded(settings.fsdp, settings.model, gather=gather_of(config))
