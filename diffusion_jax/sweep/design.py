"""From the definition of a sweep to its runs, all checked before any time is spent."""

import copy
import functools
import json
import operator
import re
import runpy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_jax.from_config import Config, ConfigError, build
from diffusion_jax.sweep.expression import Overrides, check_number, expand
from diffusion_jax.sweep.metric import expected
from diffusion_jax.system.command_line import suggest, unknown_key
from diffusion_jax.system.files import path_of

MOST_RUNS = 200
LONGEST_NAME = 100


@dataclass(frozen=True)
class Sweep:
    """An ablation, as returned by a file's `get_sweep()`."""

    runs: str | Sequence[Mapping[str, Any]]  # an expression (`expression.expand`), or overrides
    question: str = ""  # the question to answer, shown at the top of the report
    hypothesis: str = ""  # the expected answer
    fixed: Mapping[str, Any] = field(default_factory=dict)  # overrides of all runs
    # figure that ranks settings: a name in `result.json`, or a prefix; the held-out loss if a run
    # has none
    metric: str = "frechet"


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a sweep."""

    name: str  # of its folder, from its overrides
    setting: str  # its overrides in words, without the seed
    overrides: Overrides
    config: Config


def load(words: str) -> Sweep:
    """Loads a sweep from a file or an expression; a ConfigError if the file is unusable."""
    if not words.endswith(".py"):
        return Sweep(words)
    path = path_of(words)
    if not path.is_file():
        near = sorted(map(str, Path("experiments").glob("*/sweep*.py")))
        raise ConfigError(f"--sweep={words}: there is no such file{suggest(words, near)}")
    sweep = runpy.run_path(str(path)).get("get_sweep", lambda: None)()
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"--sweep={words}: its get_sweep() must return a diffusion_jax Sweep")
    return sweep


def make_runs(sweep: Sweep, config: Config, most: int = MOST_RUNS) -> list[Run]:
    """The runs of a sweep over a config.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, there are no runs, two are equal,
            or there are more than `most`.
    """
    if isinstance(sweep.runs, str):
        own = expand(sweep.runs, most)
    else:
        own = [dict(overrides) for overrides in sweep.runs]
        check_number(len(own), most)
    configs = [_changed(config, {**sweep.fixed, **overrides}) for overrides in own]
    short = _short(own)
    names = _names([_in_words(overrides, short, ",") for overrides in own])
    but_seed = [{k: v for k, v in overrides.items() if k != "seed"} for overrides in own]
    settings = [_in_words(overrides, short, ", ") or "as configured" for overrides in but_seed]
    seen: dict[str, str] = {}
    for name, changed in zip(names, configs, strict=True):
        text = json.dumps(changed.to_dict(), sort_keys=True)
        if text in seen:
            raise ConfigError(f"--sweep: two runs are the same: {seen[text]} and {name}")
        seen[text] = name
    return [Run(*each) for each in zip(names, settings, own, configs, strict=True)]


def check(runs: Iterable[Run], devices: int | None) -> list[dict[str, str]]:
    """Builds the parts of every run; runs with the same data share the loaded data set.

    Each run will have `devices` devices; None: those of this process's JAX. Returns the `expected`
    figures of each.

    Raises:
        ConfigError: a run is not possible; the message names it.
        DataError: as for a single run.
    """
    datasets: dict[str, Any] = {}
    figures = []
    for run in runs:
        key = json.dumps(run.config.data.to_dict(), sort_keys=True)
        try:
            datasets[key] = build(run.config, datasets.get(key), devices).dataset
        except ConfigError as error:
            raise ConfigError(f"--sweep: run {run.name}: {error}") from error
        figures.append(expected(run.config, datasets[key]))
    return figures


def _changed(config: Config, overrides: Overrides) -> Config:
    """A copy of a config with overrides."""
    changed = copy.deepcopy(config)
    for key, value in overrides.items():
        if wrong := unknown_key(changed, key):
            raise ConfigError(f"--sweep: {wrong}")
        try:
            changed.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            default = functools.reduce(operator.getitem, key.split("."), config.to_dict())
            raise ConfigError(
                f"--sweep: {key}={value!r} is not of the type of its default, {json.dumps(default)}"
            ) from error
    return changed


def _short(runs: Sequence[Overrides]) -> dict[str, str]:
    """A short name for each key: its last part, if that is unique."""
    last = {key: key.rpartition(".")[2] for run in runs for key in run}
    counts = Counter(last.values())
    return {key: word if counts[word] == 1 else key for key, word in last.items()}


def _in_words(overrides: Overrides, short: Mapping[str, str], comma: str) -> str:
    def word(value: Any) -> str:
        return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)

    return comma.join(f"{short[key]}={word(value)}" for key, value in overrides.items())


def _names(words: Sequence[str]) -> list[str]:
    """A folder name for each run, such as `prediction=eps,seed=0`; numbered if not unique."""
    names = [re.sub(r"[^\w.=,+-]+", "_", each) for each in words]
    if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_NAME:
        return names
    width = len(str(len(names)))
    return [f"{i:0{width}d},{name}"[:LONGEST_NAME] for i, name in enumerate(names)]
