"""Parser of sweep expressions: grids, lists, zipped and random values."""

import ast
import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from diffusion_jax.from_config import ConfigError

Overrides = dict[str, Any]  # values by config key: `{"objective.prediction": "eps"}`

DRAWS: Mapping[str, Callable[[np.random.Generator, float, float, int], np.ndarray]] = {
    "uniform": lambda rng, low, high, n: rng.uniform(low, high, n),
    "log_uniform": lambda rng, low, high, n: np.exp(rng.uniform(np.log(low), np.log(high), n)),
    "integers": lambda rng, low, high, n: rng.integers(int(low), int(high) + 1, n),
}
DRAW = re.compile(rf"({'|'.join(DRAWS)})\((.*)\)")


def expand(expression: str, most: int) -> list[Overrides]:
    """The runs of an expression, in order.

    `key=a,b; key2=c,d` is the grid of all combinations; the last key varies fastest. `key=a,b &
    key2=c,d` is zipped: a with c, b with d. `key=a | key2=b` is a list of runs. `&` binds most
    tightly, then `|`, then `;`. `key=log_uniform(1e-4, 1e-2, 8)`, `uniform` and `integers` (both
    ends included) are eight random values, fixed by the text of the expression; zipped, they are a
    random search.

    Raises:
        ConfigError: a part is not `key=values`, has no values, or is zipped with a different
            number of values; or there are more than `most` runs, which are not created.
    """
    factors = [
        [run for alternative in split(factor, "|") for run in _zipped(alternative)]
        for factor in split(expression, ";")
    ]
    check_number(math.prod(map(len, factors)) if factors else 0, most)
    return [_joined(parts, expression) for parts in itertools.product(*factors)]


def check_number(runs: int, most: int) -> None:
    """Raises a ConfigError if there are no runs, or more than allowed."""
    if not runs:
        raise ConfigError("--sweep: there are no runs in it: the grid is empty")
    if runs > most:
        how = f"to run them all, set --max_runs={runs}"
        raise ConfigError(f"--sweep: {runs:,} runs are more than {most}; {how}")


def _zipped(text: str) -> list[Overrides]:
    """The runs of `key=values & key=values`."""
    axes = [_axis(part) for part in split(text, "&")]
    if len({len(values) for _, values in axes}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in axes)
        raise ConfigError(f"--sweep: zipped keys need equally many values: {lengths} in {text!r}")
    columns = ([{key: value} for value in values] for key, values in axes)
    return [_joined(parts, text) for parts in zip(*columns, strict=True)]


def _axis(text: str) -> tuple[str, list[Any]]:
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--sweep: {text!r} is not key=value,value,... of the config")
    if drawn := DRAW.fullmatch(values.strip()):
        return key, _draw(text, drawn[1], drawn[2])
    found = [value_of(value) for value in split(values, ",")]
    if not found:
        raise ConfigError(f"--sweep: {key} has no values in {text!r}: the grid is empty")
    return key, found


def _draw(text: str, name: str, arguments: str) -> list[Any]:
    """Random values that depend only on the expression, so that a sweep can be continued."""
    try:
        low, high, n = (float(part) for part in arguments.split(","))
        if n < 1 or n != int(n) or low > high or (name == "log_uniform" and low <= 0):
            raise ValueError
    except ValueError as error:
        raise ConfigError(
            f"--sweep: {name}(low, high, n) draws n values between two numbers (above 0 for "
            f"log_uniform), not {text!r}"
        ) from error
    digest = hashlib.sha256("".join(text.split()).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    values = DRAWS[name](rng, low, high, int(n)).tolist()
    return [float(f"{v:.4g}") if isinstance(v, float) else v for v in values]


def _joined(parts: Iterable[Overrides], text: str) -> Overrides:
    """Merges parts of a run; a ConfigError if two set the same key."""
    run: Overrides = {}
    for part in parts:
        for key in part.keys() & run.keys():
            raise ConfigError(f"--sweep: {key} is set twice in {text.strip()!r}")
        run |= part
    return run


def value_of(text: str) -> Any:
    """A number, tuple, bool or quoted string as in Python; otherwise the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def split(text: str, mark: str) -> list[str]:
    """Splits at marks outside of brackets and quotes, and drops empty parts."""
    depth, quote, parts = 0, "", [""]
    for char in text:
        if char == mark and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += char
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
    return [part.strip() for part in parts if part.strip()]
