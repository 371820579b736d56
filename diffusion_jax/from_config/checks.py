"""Refuses numbers of a config that cannot be, before any time is spent."""

import math
from typing import Any

from diffusion_jax.from_config.choices import Config, ConfigError, group_of, keyed, metrics_of
from diffusion_jax.from_config.extractors import statistics_of, weights_file
from diffusion_jax.from_config.identity import read_config
from diffusion_jax.system.arguments import check
from diffusion_jax.system.files import path_of

COUNT, SOME, POSITIVE = "[0, inf)", "[1, inf)", "(0, inf)"
RANGES: dict[str, dict[str, Any]] = {
    "data": {
        **dict.fromkeys(("image_size", "num_workers", "prefetch"), COUNT),
        **{"heldout_fraction": "[0, 1)", "stall_seconds": POSITIVE},
    },
    "train": {
        **dict.fromkeys(("steps", "batch_size", "accumulate", "log_every"), SOME),
        **dict.fromkeys(("keep_checkpoints", "max_skipped"), SOME),
        **dict.fromkeys(("keep_every", "keep_best"), COUNT),
    },
    "parallel": {"strategy": ("replicated", "sharded"), "fsdp": SOME, "model": SOME},
    "sample": {"num_images": SOME, "batch_size": SOME, "strip": "[2, inf)"},
    "evaluate": {"bootstrap": "[2, inf)", "denoising_images": "[2, inf)"},
    "evaluate.likelihood": {"num_images": "[2, inf)", "probes": SOME, "noise_levels": SOME},
}
"""Of settings that no part checks itself before a training."""


def check_numbers(config: Config, devices: int) -> None:
    """Raises a ConfigError if a number, or a file that it goes with, cannot be."""
    for group, ranges in RANGES.items():
        with keyed(group):
            check(ranges, **group_of(config, group))
    with keyed("config"):
        check({"seed": COUNT}, seed=config.seed)
    if config.train.keep_best and not config.train.heldout_every:
        raise ConfigError("train.keep_best needs the held-out loss: set train.heldout_every")
    metrics, image_condition = metrics_of(config), config.image_condition.name
    if "names" in metrics and image_condition != "none":
        raise ConfigError(
            "evaluate.metrics: 'names' measures pictures drawn from names alone, while "
            f"image_condition.name={image_condition!r}"
        )
    if (trained_on := config.data.train_split) in config.evaluate.names.splits:
        raise ConfigError(
            f"evaluate.names.splits: {trained_on!r} is trained on, and measured anyway"
        )
    if "likelihood" in metrics and config.sample.steps < 2:
        raise ConfigError(
            "evaluate.metrics: 'likelihood' needs sample.steps of at least 2 for its bound of the "
            "ancestral sampler"
        )
    # Files are looked for now, not after a training.
    for group in ("sample.guidance.likeness", "evaluate.names"):
        if folder := group_of(config, group).judge:
            read_config(path_of(folder), f"{group}.judge={folder!r}")
    statistics_of(config)
    weights_file(config)
    _check_parallel(config, devices)


def _check_parallel(config: Config, devices: int) -> None:
    settings = config.parallel
    if math.prod(mesh_shape(config, devices)) != devices:
        raise ConfigError(
            f"parallel.fsdp={settings.fsdp} x parallel.model={settings.model} must divide the "
            f"number of devices, {devices}"
        )
    rows = math.prod(mesh_shape(config, devices)[:2])
    parts = rows * config.train.accumulate
    if config.train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} cannot be split over {rows} devices x "
            f"train.accumulate={config.train.accumulate}: it must be a multiple of {parts}"
        )


def mesh_shape(config: Config, devices: int) -> tuple[int, int, int]:
    """Devices along `data`, `fsdp` and `model`, of so many."""
    settings = config.parallel
    sharded = settings.strategy == "sharded"
    fsdp, model = (settings.fsdp, settings.model) if sharded else (1, 1)
    return devices // (fsdp * model), fsdp, model
