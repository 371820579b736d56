"""The data set of a config."""

import dataclasses
from typing import Any

from diffusion_jax.data import Dataset, describe_dataset, empty_dataset, load_dataset, mixed
from diffusion_jax.data.dataset import Options
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, lookup

MEMORY = {"auto": None, "always": True, "never": False}
MIXED = ("folder", "huggingface", "text")
"""Sets whose items are those in `data.dir`."""


def make_dataset(config: Config, **changes: Any) -> Dataset:
    """The data set, with `changes` of its options.

    Raises:
        ConfigError: a setting is not possible.
        DataError: the data are missing, or do not fit the config.
    """
    memory = lookup(MEMORY, config.data.in_memory, "data.in_memory")
    options = {"memory": memory, **_options(config)}
    mix = config.data.get("mix", {})  # which older runs do not have
    if changes or not mix.get("dir"):
        return load_dataset(**{**options, **changes})
    check_known(config.data.name, MIXED, "data.mix.dir is for folders: data.name")
    found = load_dataset(**options)
    others = load_dataset(**{**options, "data_dir": mix.dir, "heldout_fraction": 0.0})
    return mixed(found, others, mix.share)


def _options(config: Config) -> dict[str, Any]:
    data = {**config.data, "data_dir": config.data.dir}
    # An option that an older config does not have is at its default.
    fields = [
        f for f in dataclasses.fields(Options) if f.name in data or f.default is dataclasses.MISSING
    ]
    return {field.name: data[field.name] for field in fields}


def planned_dataset(config: Config) -> Dataset:
    """The data set; without items if it is not prepared yet, or `plan.shape` replaces its shape.

    Raises:
        ConfigError: `plan.shape` is not possible.
        DataError: as for `make_dataset`.
    """
    shape = tuple(config.plan.shape)
    found = describe_dataset(**_options(config)) or make_dataset(config)
    if not shape:
        return found
    if len(shape) != len(found.kind.shape) or min(shape) < 1:
        raise ConfigError(f"plan.shape={shape} must have as many sides as {found.kind.words} have")
    kind = dataclasses.replace(found.kind, shape=shape)
    return empty_dataset(found.name, kind, found.class_names, found.captioned)
