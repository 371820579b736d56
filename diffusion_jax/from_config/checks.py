"""Refuses numbers of a config that cannot be, before any time is spent."""

import math
from pathlib import Path

from ml_collections import ConfigDict

from diffusion_jax.evaluation.references import read_statistics
from diffusion_jax.from_config.choices import ConfigError, check_known, metrics_of
from diffusion_jax.from_config.extractors import weights_file

PARALLEL = ("replicated", "sharded")


def check_numbers(config: ConfigDict, devices: int) -> None:
    """Raises a ConfigError if a number, or a file that it goes with, cannot be."""
    at_least_1 = (
        "steps",
        "batch_size",
        "accumulate",
        "log_every",
        "keep_checkpoints",
        "max_skipped",
    )
    for key in at_least_1:
        if config.train[key] < 1:
            raise ConfigError(f"train.{key}={config.train[key]} must be at least 1")
    for key in ("keep_every", "keep_best"):
        if config.train[key] < 0:
            raise ConfigError(f"train.{key}={config.train[key]} must be 0 (none) or more")
    if config.train.keep_best and not config.train.heldout_every:
        raise ConfigError("train.keep_best needs the held-out loss: set train.heldout_every")
    if config.data.stall_seconds <= 0:
        raise ConfigError(f"data.stall_seconds={config.data.stall_seconds} must be above 0")
    for key in ("num_images", "batch_size"):
        if config.sample[key] < 1:
            raise ConfigError(f"sample.{key}={config.sample[key]} must be at least 1")
    if config.sample.strip < 2:
        raise ConfigError(
            f"sample.strip={config.sample.strip} must be at least 2: noise and result"
        )
    if config.evaluate.bootstrap < 2:
        raise ConfigError(f"evaluate.bootstrap={config.evaluate.bootstrap} must be at least 2")
    _check_evaluation(config)
    judge, key = config.sample.guidance.likeness.judge, "sample.guidance.likeness.judge"
    _check_run(key, judge)  # refused now, not after a training
    _check_parallel(config, devices)


def _check_evaluation(config: ConfigDict) -> None:
    settings = config.evaluate
    if "names" in metrics_of(config) and config.image_condition.name != "none":
        raise ConfigError(
            "evaluate.metrics: 'names' measures pictures drawn from names alone, while "
            f"image_condition.name={config.image_condition.name!r}"
        )
    _check_run("evaluate.names.judge", settings.names.judge)
    if settings.reference:
        read_statistics(Path(settings.reference).expanduser())
    weights_file(config)
    if settings.denoising_images < 2:
        raise ConfigError(
            f"evaluate.denoising_images={settings.denoising_images} must be at least 2"
        )
    likelihood = settings.likelihood
    for key, least in (("num_images", 2), ("probes", 1), ("noise_levels", 1)):
        if likelihood[key] < least:
            raise ConfigError(
                f"evaluate.likelihood.{key}={likelihood[key]} must be at least {least}"
            )
    if "likelihood" in metrics_of(config) and config.sample.steps < 2:
        raise ConfigError(
            "evaluate.metrics: 'likelihood' needs sample.steps of at least 2 for its bound of the "
            "ancestral sampler"
        )


def _check_run(key: str, folder: str) -> None:
    if folder and not (Path(folder) / "config.json").exists():
        raise ConfigError(f"{key}={folder!r}: there is no run in {folder}")


def _check_parallel(config: ConfigDict, devices: int) -> None:
    settings = config.parallel
    check_known(settings.strategy, PARALLEL, "parallel.strategy")
    least = min(settings.fsdp, settings.model)
    if least < 1 or math.prod(mesh_shape(config, devices)) != devices:
        raise ConfigError(
            f"parallel.fsdp={settings.fsdp} x parallel.model={settings.model} must divide the "
            f"number of devices, {devices}"
        )
    data, fsdp, _ = mesh_shape(config, devices)
    rows = data * fsdp
    parts = rows * config.train.accumulate
    if config.train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} cannot be split over {rows} devices x "
            f"train.accumulate={config.train.accumulate}: it must be a multiple of {parts}"
        )


def mesh_shape(config: ConfigDict, devices: int) -> tuple[int, int, int]:
    """Devices along `data`, `fsdp` and `model`, of so many."""
    settings = config.parallel
    sharded = settings.strategy == "sharded"
    fsdp, model = (settings.fsdp, settings.model) if sharded else (1, 1)
    return devices // (fsdp * model), fsdp, model
