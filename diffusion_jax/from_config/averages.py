"""Parameter averages that a config tracks in training, and those requested afterwards."""

from typing import Any

from diffusion_jax.from_config.choices import Config, ConfigError, keyed
from diffusion_jax.training.ema import EXPONENTIAL, PARAMETERS, Average, Exponential, Power


def make_averages(config: Config) -> dict[str, Average]:
    """The averages to track, by name: `EXPONENTIAL`, and one for each length."""
    settings = config.ema
    with keyed("ema"):
        averages: dict[str, Average] = {EXPONENTIAL: Exponential(settings.decay, settings.warmup)}
    names = [_length_name(length, "ema.lengths") for length in settings.lengths]
    averages |= {name: Power(float(name)) for name in names}
    if len(averages) <= len(settings.lengths):
        raise ConfigError(f"ema.lengths={tuple(settings.lengths)} has a length twice")
    every = settings.snapshot_every
    if every < 0 or (every and not settings.lengths):
        raise ConfigError(
            f"ema.snapshot_every={every} must be 0, or a number of steps between stored snapshots "
            "of the averages that ema.lengths gives, e.g. ema.lengths=0.05,0.1"
        )
    if every % settings.get("every", 1):  # missing in runs of older versions
        raise ConfigError(
            f"ema.snapshot_every={every} must be a multiple of ema.every={settings.every}"
        )
    asked = {sample_average(config): "sample.ema"}
    asked |= {name: "evaluate.ema_lengths" for name in evaluated(config) if name not in asked}
    for name, key in asked.items():
        if name not in (*averages, PARAMETERS) and not every:
            raise ConfigError(
                f"{key} needs EMA length {name}, which is not tracked, and there are no snapshots "
                "to compute it from: train with ema.lengths=0.05,0.1 and "
                f"ema.snapshot_every={max(config.train.steps // 20, 1)}, or with that length "
                "among ema.lengths"
            )
    return averages


def sample_average(config: Config) -> str:
    """Name of the average selected by `sample.ema`."""
    asked = config.sample.ema
    if asked in ("", PARAMETERS):
        return asked or EXPONENTIAL
    return _length_name(asked, "sample.ema")


def evaluated(config: Config) -> list[str]:
    """Names of the lengths to be compared in an evaluation."""
    key = "evaluate.ema_lengths"
    return list(dict.fromkeys(_length_name(one, key) for one in config.evaluate.ema_lengths))


def _length_name(value: Any, key: str) -> str:
    """Canonical name of a length."""
    try:
        length = float(value)
    except (TypeError, ValueError) as error:
        also = f"'', {PARAMETERS!r} or " if key == "sample.ema" else ""
        raise ConfigError(f"{key}={value!r} is not known: allowed is {also}a length") from error
    with keyed("ema", length=key):
        Power(length)
    return str(length)
