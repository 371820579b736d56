"""Picking a part by its name, and refusing what is not one."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.system.command_line import suggest

Config = ConfigDict
"""The resolved config, for those who may not import ml_collections."""


class ConfigError(ValueError):
    """A config that cannot work: which field, which value, what is allowed."""


def lookup(table: Mapping[str, Any], name: str, key: str) -> Any:
    """`table[name]`, or a ConfigError that offers the nearest name."""
    check_known(name, table, key)
    return table[name]


def check_known(name: object, known: Iterable[object], key: str) -> None:
    """Raises a ConfigError that offers the nearest name if `name` is not one of `known`."""
    if name not in known:
        raise ConfigError(f"{key}={name!r} is not known{suggest(name, known)}")


def metrics_of(config: ConfigDict) -> list[str]:
    """The names in `evaluate.metrics`, "a,b"."""
    return [name.strip() for name in config.evaluate.metrics.split(",") if name.strip()]


def choose(group: ConfigDict, key: str, table: Mapping[str, Callable[..., Any]]) -> Any:
    """The part that `group.name` names, made with the settings in the group of that name."""
    make = lookup(table, group.name, f"{key}.name")
    return make(**group.get(group.name, ConfigDict()))
