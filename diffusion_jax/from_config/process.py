"""Schedule, training times and objective of a config."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.diffusion import schedules, time_sampling
from diffusion_jax.diffusion.prediction import PREDICTIONS, Prediction, edm
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import ConfigError, check_known, choose, keyed, lookup
from diffusion_jax.models.uncertainty import Uncertainty
from diffusion_jax.objectives import gaussian as objectives
from diffusion_jax.objectives.contrastive import ContrastiveLoss
from diffusion_jax.objectives.gaussian import GaussianLoss
from diffusion_jax.types import Array, Params

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

    return GaussianLoss(
        apply=_no_network,
        schedule=schedule,
        prediction=lookup(predictions, settings.prediction, "objective.prediction"),
        quantile=_quantile(config, schedule),
        batch_size=config.train.batch_size,
        loss_space=_loss_space(config, predictions),
        weighting=_weighting(config),
        huber=settings.huber,
        uncertainty=uncertainty if settings.learned_uncertainty else None,
        time_law=_time_law if config.time_sampling.learned else None,
        cond_dropout=settings.cond_dropout,
        part_dropout=dict(settings.part_dropout),
        vlb_steps=config.time_sampling.discrete.num_steps if settings.learned_variance else 0,
        vlb_weight=settings.vlb_weight,
    )


def make_contrastive(config: ConfigDict) -> ContrastiveLoss:
    """CLIP's objective, still without its network.

    Raises:
        ConfigError: a setting is not possible.
    """
    shift = config.objective.contrastive.max_shift
    if shift < 0:
        raise ConfigError(f"objective.contrastive.max_shift={shift} must be 0 or more pixels")
    return ContrastiveLoss(_no_network, config.train.batch_size, shift)


def _no_network(*_: Any) -> Any:
    raise TypeError("an objective without its network")


def _time_law(params: Params) -> Array:
    logits: Array = params["time_law"]
    return logits


def make_schedule(config: ConfigDict) -> Schedule:
    """The noise schedule, with its transforms.

    Raises:
        ConfigError: a setting is not possible.
    """
    settings = config.schedule
    schedule = choose(settings, "schedule", SCHEDULES)
    if settings.shift != 1:
        with keyed("schedule", factor="schedule.shift"):
            schedule = schedules.Shifted(schedule, settings.shift)
    return schedules.ZeroTerminalSNR(schedule) if settings.zero_terminal_snr else schedule


def _quantile(config: ConfigDict, schedule: Schedule) -> time_sampling.Quantile:
    # Stated in noise levels, and hence given the schedule.
    first = [schedule] * (config.time_sampling.name == "log_normal")
    return choose(config.time_sampling, "time_sampling", QUANTILES, *first)


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
