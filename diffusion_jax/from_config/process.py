"""Process, training times and error function of a config."""

import functools
import operator
from collections.abc import Callable

from diffusion_jax.diffusion import schedules, time_sampling
from diffusion_jax.diffusion.prediction import PREDICTIONS, Prediction, edm
from diffusion_jax.diffusion.process import TIME_INPUTS, Gaussian
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import Config, ConfigError, choose, keyed, lookup
from diffusion_jax.objectives import weightings
from diffusion_jax.objectives.gaussian import Error
from diffusion_jax.objectives.parts import Times
from diffusion_jax.types import Array

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
    "ouve": schedules.OUVE,
    "bridge": schedules.Bridge,
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
    "snr": weightings.snr,
    "truncated_snr": weightings.truncated_snr,
    "min_snr": weightings.min_snr,
    "p2": weightings.p2,
    "edm": weightings.edm,
    "sigmoid": weightings.sigmoid,
    "vlb": weightings.vlb,
}


def make_process(config: Config) -> Gaussian:
    """The diffusion process."""
    settings = config.objective
    if settings.learned_variance and config.time_sampling.name != "discrete":
        raise ConfigError(
            f"objective.learned_variance=True needs time_sampling.name='discrete', not "
            f"{config.time_sampling.name!r}: the bound is a sum over steps"
        )
    prediction = lookup(_predictions(config), settings.prediction, "objective.prediction")
    time_input = lookup(TIME_INPUTS, config.model.time_input, "model.time_input")
    residual = config.image_condition.residual
    return Gaussian(
        *(make_schedule(config), prediction, settings.learned_variance, time_input, residual)
    )


def make_times(config: Config, schedule: Schedule) -> Times:
    """The distribution of training times."""
    settings = config.time_sampling
    first = [schedule] * (settings.name == "log_normal")  # defined by noise levels
    quantile = choose(settings, "time_sampling", QUANTILES, *first)
    law = operator.itemgetter("time_law") if settings.learned else None
    return Times(quantile, config.train.batch_size, law)


def make_error(config: Config, process: Gaussian) -> Error:
    """The error function."""
    space, name = config.objective.loss_space, config.objective.weighting
    weighting = lookup(WEIGHTINGS, name, "objective.weighting")
    if space and name != "uniform":
        raise ConfigError(
            f"objective.loss_space={space!r} needs objective.weighting='uniform': {name!r} is a "
            "weight of the error in x_0, the same for all spaces"
        )
    predictions = {**_predictions(config), "": process.prediction}
    predictions[config.objective.prediction] = process.prediction
    loss_space = lookup(predictions, space, "objective.loss_space")
    options = config.objective.get(name)
    if name == "edm":
        options = {"sigma_data": config.objective.sigma_data}
    if weighting and options:
        weighting = functools.partial(weighting, **options)
    return Error(loss_space, weighting, config.objective.huber)


def _predictions(config: Config) -> dict[str, Prediction]:
    return {**PREDICTIONS, "edm": edm(config.objective.sigma_data)}


def make_schedule(config: Config) -> Schedule:
    """The noise schedule, with its transforms."""
    settings = config.schedule
    schedule = choose(settings, "schedule", SCHEDULES)
    if settings.shift != 1:
        with keyed("schedule", factor="schedule.shift"):
            schedule = schedules.Shifted(schedule, settings.shift)
    return schedules.ZeroTerminalSNR(schedule) if settings.zero_terminal_snr else schedule
