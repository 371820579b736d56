"""The only place where config strings become objects, and where a bad config is refused."""

import dataclasses
import difflib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from diffusion_jax import objectives, schedules, time_grids, time_sampling
from diffusion_jax.command_line import suggest
from diffusion_jax.data import Dataset, load_dataset
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.uncertainty import Uncertainty
from diffusion_jax.models.unet import UNet
from diffusion_jax.objectives import GaussianLoss
from diffusion_jax.prediction import PREDICTIONS, Prediction, edm
from diffusion_jax.sample import Generator
from diffusion_jax.samplers.ancestral import VARIANCES, ancestral
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.schedules import Schedule
from diffusion_jax.training.optimizer import DECAYS, learning_rate_schedule, make_optimizer
from diffusion_jax.types import Array, Cond, Key, Params, Sampler

Config = ConfigDict
"""The resolved config, for those who may not import ml_collections."""

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "ddpm": schedules.DDPM,
    "scaled_linear": schedules.ScaledLinear,
    "linear_beta": schedules.LinearBeta,
    "sub_vp": schedules.SubVP,
    "cosine": schedules.Cosine,
    "sigmoid": schedules.Sigmoid,
    "flow": schedules.Flow,
    "edm": schedules.EDM,
    "ve": schedules.VE,
    "linear_logsnr": schedules.LinearLogSNR,
    "laplace": schedules.Laplace,
    "cauchy": schedules.Cauchy,
}
QUANTILES: dict[str, Callable[..., time_sampling.Quantile]] = {
    "uniform": time_sampling.uniform,
    "discrete": time_sampling.discrete,
    "logit_normal": time_sampling.logit_normal,
    "log_normal": time_sampling.log_normal,
}
WEIGHTINGS: dict[str, Callable[..., Array] | None] = {
    "uniform": None,
    "snr": objectives.snr,
    "truncated_snr": objectives.truncated_snr,
    "min_snr": objectives.min_snr,
    "p2": objectives.p2,
    "edm": objectives.edm,
    "sigmoid": objectives.sigmoid,
    "vlb": objectives.vlb,
}
MODELS: dict[str, Callable[..., nn.Module]] = {"unet": UNet, "dit": DiT}
SAMPLERS: dict[str, Callable[..., Sampler]] = {"ddim": ddim, "ancestral": ancestral}
GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": time_grids.uniform,
    "quadratic": time_grids.quadratic,
    "trailing": time_grids.trailing,
    "leading": time_grids.leading,
    "karras": time_grids.karras,
    "uniform_logsnr": time_grids.uniform_logsnr,
}
OF_SCHEDULE = ("log_normal", "karras", "uniform_logsnr")
"""Laws and grids of times that are stated in noise levels, and hence given the schedule first."""
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MEMORY = {"auto": None, "always": True, "never": False}

FREE = (
    *("sample", "evaluate", "data.dir", "data.manual_dir", "data.in_memory", "data.num_workers"),
    *("data.prefetch", "train.log_every", "train.heldout_every", "train.sample_every"),
    *("train.checkpoint_every", "train.keep_checkpoints"),
)
"""Keys that may change between two commands on one workdir: they do not change the training."""


class ConfigError(ValueError):
    """A config that cannot work: which field, which value, what is allowed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What a config means.

    Attributes:
        dataset: images.
        init: key -> parameters.
        loss: the training objective.
        heldout_loss: the same without dropout of any kind.
        optimizer: with its learning rate schedule inside.
        generator: from parameters to samples.
    """

    dataset: Dataset
    init: Callable[[Key], Params]
    loss: GaussianLoss
    heldout_loss: GaussianLoss
    optimizer: optax.GradientTransformation
    generator: Generator


def build(config: ConfigDict) -> Parts:
    """Makes every part, cheapest checks first.

    Raises:
        ConfigError: a setting is not possible.
        DataError: the data is not there, or not as the config says.
    """
    objective = make_objective(config)
    schedule = objective.schedule
    times = make_times(config, schedule)
    sampler = _sampler(config, schedule)
    check_known(config.model.name, MODELS, "model.name")
    check_known(config.model.dtype, DTYPES, "model.dtype")
    optimizer = _optimizer(config)
    _check_numbers(config)
    _check_times(config, schedule)

    dataset = _dataset(config)
    network = _network(config, dataset)

    def apply(params: Params, x_t: Array, t: Array, cond: Cond) -> Any:
        return network.apply({"params": params}, x_t, t, cond)

    def apply_train(params: Params, x_t: Array, t: Array, cond: Cond, key: Key) -> Any:
        return network.apply({"params": params}, x_t, t, cond, train=True, rngs={"dropout": key})

    def init(key: Key) -> Params:
        x, t = jnp.zeros((1, *dataset.image_shape)), jnp.zeros(1)
        params = network.init(key, x, t, {"label": jnp.zeros(1, jnp.int32)})["params"]
        if objective.uncertainty:
            params = {**params, "uncertainty": Uncertainty().init(key, t)["params"]}
        return params

    try:
        jax.eval_shape(init, jax.random.key(0))
    except ValueError as error:
        raise ConfigError(str(error)) from error

    loss = dataclasses.replace(objective, apply=apply_train)
    heldout_loss = dataclasses.replace(
        objective, apply=lambda params, *args: apply(params, *args[:-1]), label_dropout=0.0
    )
    generator = Generator(
        apply=apply,
        schedule=schedule,
        prediction=objective.prediction,
        sampler=sampler,
        times=times,
        shape=dataset.image_shape,
        clip=config.sample.clip,
        learned_variance=config.objective.learned_variance,
    )
    return Parts(dataset, init, loss, heldout_loss, optimizer, generator)


def lookup(table: Mapping[str, Any], name: str, key: str) -> Any:
    """`table[name]`, or a ConfigError that offers the nearest name."""
    check_known(name, table, key)
    return table[name]


def check_known(name: str, known: Iterable[str], key: str) -> None:
    """Raises a ConfigError that offers the nearest name if `name` is not one of `known`."""
    if name not in known:
        raise ConfigError(f"{key}={name!r} is not known{suggest(name, known)}")


def choose(group: ConfigDict, key: str, table: Mapping[str, Callable[..., Any]]) -> Any:
    """The part that `group.name` names, made with the settings in the group of that name."""
    make = lookup(table, group.name, f"{key}.name")
    return make(**group.get(group.name, ConfigDict()))


def training_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat `{"group.key": value}` of all keys that the training depends on."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                visit(f"{prefix}.{name}" if prefix else name, inner)
        elif not any(prefix == free or prefix.startswith(f"{free}.") for free in FREE):
            flat[prefix] = list(value) if isinstance(value, tuple) else value

    visit("", config)
    return flat


def config_hash(config: ConfigDict) -> str:
    """Short hash of `training_config`."""
    text = json.dumps(training_config(config.to_dict()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_objective(config: ConfigDict) -> GaussianLoss:
    """The training objective, still without its network.

    Raises:
        ConfigError: a setting is not possible.
    """
    settings = config.objective
    schedule = make_schedule(config)
    predictions = {**PREDICTIONS, "edm": edm(settings.sigma_data)}
    if settings.learned_variance and config.time_sampling.name != "discrete":
        raise ConfigError(
            f"objective.learned_variance=True needs time_sampling.name='discrete', not "
            f"{config.time_sampling.name!r}: the bound is a sum over steps"
        )

    def uncertainty(params: Params, t: Array) -> Array:
        u: Array = Uncertainty().apply({"params": params["uncertainty"]}, t)  # type: ignore[assignment]
        return u

    def no_network(*_: Any) -> Array:
        raise TypeError("an objective without its network")

    return GaussianLoss(
        apply=no_network,
        schedule=schedule,
        prediction=lookup(predictions, settings.prediction, "objective.prediction"),
        quantile=_quantile(config, schedule),
        batch_size=config.train.batch_size,
        loss_space=_loss_space(config, predictions),
        weighting=_weighting(config),
        huber=settings.huber,
        uncertainty=uncertainty if settings.learned_uncertainty else None,
        label_dropout=settings.label_dropout,
        vlb_steps=config.time_sampling.discrete.num_steps if settings.learned_variance else 0,
        vlb_weight=settings.vlb_weight,
    )


def make_schedule(config: ConfigDict) -> Schedule:
    """The noise schedule, with its transforms.

    Raises:
        ConfigError: a setting is not possible.
    """
    settings = config.schedule
    schedule = choose(settings, "schedule", SCHEDULES)
    if not settings.shift > 0:
        raise ConfigError(f"schedule.shift={settings.shift} must be above 0; 1 is none")
    if settings.shift != 1:
        schedule = schedules.Shifted(schedule, settings.shift)
    return schedules.ZeroTerminalSNR(schedule) if settings.zero_terminal_snr else schedule


def _quantile(config: ConfigDict, schedule: Schedule) -> time_sampling.Quantile:
    group = config.time_sampling
    make = lookup(QUANTILES, group.name, "time_sampling.name")
    return make(*[schedule] * (group.name in OF_SCHEDULE), **group[group.name])


def make_times(config: ConfigDict, schedule: Schedule) -> Array:
    """The sampling grid.

    Raises:
        ConfigError: it does not fall, or a setting is not possible.
    """
    sample = config.sample
    make = lookup(GRIDS, sample.grid, "sample.grid")
    if sample.steps < 1:
        raise ConfigError(f"sample.steps={sample.steps} must be at least 1")
    if not 0 < sample.t_max <= 1:
        raise ConfigError(f"sample.t_max={sample.t_max} must lie in (0, 1]")
    first = [schedule] * (sample.grid in OF_SCHEDULE)
    try:
        times = make(*first, sample.steps, sample.t_max, **sample.get(sample.grid, ConfigDict()))
    except ValueError as error:
        raise ConfigError(f"sample.grid={sample.grid!r}: {error}") from error
    same = np.flatnonzero(~(np.diff(times) < 0))
    if len(same):
        raise ConfigError(
            f"sample.grid={sample.grid!r} with sample.steps={sample.steps} does not fall at step "
            f"{same[0] + 1}: from t = {times[same[0]]:.6g} to {times[same[0] + 1]:.6g}; take fewer "
            "steps, or another grid for this schedule"
        )
    return times


def _loss_space(config: ConfigDict, predictions: Mapping[str, Prediction]) -> Prediction:
    space, weighting = config.objective.loss_space, config.objective.weighting
    check_known(weighting, WEIGHTINGS, "objective.weighting")
    if space and weighting != "uniform":
        raise ConfigError(
            f"objective.loss_space={space!r} goes with objective.weighting='uniform' only: "
            f"{weighting!r} is a weight of the error in x_0, the same for all spaces"
        )
    return lookup(predictions, space or config.objective.prediction, "objective.loss_space")


def _weighting(config: ConfigDict) -> objectives.Weighting | None:
    name = config.objective.weighting
    weighting = WEIGHTINGS[name]
    options = config.objective.get(name)
    if name == "edm":
        options = {"sigma_data": config.objective.sigma_data}
    return functools.partial(weighting, **options) if weighting and options else weighting


def _sampler(config: ConfigDict, schedule: Schedule) -> Sampler:
    make = lookup(SAMPLERS, config.sample.sampler, "sample.sampler")
    sampler = make(schedule, **config.sample.get(config.sample.sampler, ConfigDict()))
    learned = config.objective.learned_variance
    if config.sample.sampler == "ancestral":
        variance = config.sample.ancestral.variance
        check_known(variance, VARIANCES, "sample.ancestral.variance")
        if variance == "learned" and not learned:
            raise ConfigError(
                "sample.ancestral.variance='learned' needs objective.learned_variance=True"
            )
    return sampler


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


def _check_numbers(config: ConfigDict) -> None:
    at_least_1 = ("steps", "batch_size", "accumulate", "log_every", "keep_checkpoints")
    for key in at_least_1:
        if config.train[key] < 1:
            raise ConfigError(f"train.{key}={config.train[key]} must be at least 1")
    for key in ("num_images", "batch_size"):
        if config.sample[key] < 1:
            raise ConfigError(f"sample.{key}={config.sample[key]} must be at least 1")
    parts = jax.local_device_count() * config.train.accumulate
    if config.train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} cannot be split over "
            f"{jax.local_device_count()} devices x train.accumulate={config.train.accumulate}: "
            f"it must be a multiple of {parts}"
        )


def _check_times(config: ConfigDict, schedule: Schedule) -> None:
    t_max, prediction = config.sample.t_max, config.objective.prediction
    if prediction in ("eps", "score") and not float(schedule.alpha(jnp.array(t_max))) > 0:
        raise ConfigError(
            f"sample.t_max={t_max}: schedule {config.schedule.name!r} has no signal there, so that "
            f"x_0 does not follow from prediction {prediction!r}; use sample.t_max=0.999, or "
            "objective.prediction=v, x0 or velocity"
        )
    if config.sample.guidance_scale != 1 and not config.objective.label_dropout:
        raise ConfigError(
            f"sample.guidance_scale={config.sample.guidance_scale} needs a network that was "
            "trained without labels too: objective.label_dropout > 0"
        )


def _dataset(config: ConfigDict) -> Dataset:
    data = config.data
    return load_dataset(
        data.name,
        data_dir=data.dir,
        manual_dir=data.manual_dir,
        image_size=data.image_size,
        train_split=data.train_split,
        heldout_split=data.heldout_split,
        heldout_fraction=data.heldout_fraction,
        memory=lookup(MEMORY, data.in_memory, "data.in_memory"),
    )


def _network(config: ConfigDict, dataset: Dataset) -> nn.Module:
    channels = dataset.image_shape[-1] * (2 if config.objective.learned_variance else 1)
    return MODELS[config.model.name](
        **config.model[config.model.name],
        num_classes=dataset.num_classes,
        out_channels=channels,
        dtype=DTYPES[config.model.dtype],
    )
