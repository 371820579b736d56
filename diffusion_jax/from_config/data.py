"""The data set of a config."""

import dataclasses
from typing import Any

from diffusion_jax.data import Dataset, describe_dataset, empty_dataset, load_dataset
from diffusion_jax.data.dataset import Options
from diffusion_jax.from_config.choices import Config, ConfigError, lookup

MEMORY = {"auto": None, "always": True, "never": False}


def make_dataset(config: Config, **changes: Any) -> Dataset:
    """The data, with `changes` of its options.

    Raises:
        ConfigError: a setting is not possible.
        DataError: the data is not there, or not as the config says.
    """
    memory = lookup(MEMORY, config.data.in_memory, "data.in_memory")
    return load_dataset(memory=memory, **{**_options(config), **changes})


def _options(config: Config) -> dict[str, Any]:
    data = {**config.data, "data_dir": config.data.dir}
    names = [field.name for field in dataclasses.fields(Options)]
    return {name: data[name] for name in names if name in data}


def planned_dataset(config: Config) -> Dataset:
    """The data, or if it is not prepared yet, or `plan.shape` says another, its shape alone.

    Raises:
        ConfigError: `plan.shape` is none.
        DataError: as for the data itself.
    """
    shape = tuple(config.plan.shape)
    found = describe_dataset(**_options(config)) or make_dataset(config)
    if not shape:
        return found
    if len(shape) != len(found.kind.shape) or min(shape) < 1:
        raise ConfigError(f"plan.shape={shape} must have as many sides as {found.kind.words} have")
    captioned = found.splits["train"].captions is not None
    kind = dataclasses.replace(found.kind, shape=shape)
    return empty_dataset(found.name, kind, found.class_names, captioned)
