"""Messages for command lines that were refused."""

import difflib
import itertools
import runpy
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def program() -> list[str]:
    """What follows `python` in the command that started this process, but for its arguments."""
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.name != "__main__.py":
        return [str(script)]
    return ["-m", "diffusion_jax"]  # also of the console script


def suggest(name: object, known: Iterable[object]) -> str:
    """The end of a message about an unknown name: the nearest known one and all, if any."""
    names = [str(one) for one in known]
    if not names:
        return ""
    near = difflib.get_close_matches(str(name), names, 1)
    guess = f": did you mean {near[0]!r}?" if near else "."
    return f"{guess} Known: {', '.join(names)}."


def check_command_line(argv: Sequence[str]) -> str:
    """Why a config or override on the command line was refused; '' if unknown.

    `argv` are the given flags, such as `--config FILE` and `--config.group.key=value`.
    """
    words = [word for arg in argv for word in arg.split("=", 1)]
    files = [b for a, b in itertools.pairwise(words) if a.lstrip("-") == "config"]
    if not files:
        return ""
    path = Path(files[-1])
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.py") if p.name != "__init__.py")
        return f"--config={path}: there is no such file{suggest(str(path), there)}"
    if path.suffix != ".py":
        return f"--config={path}: is not a Python file"
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except Exception as error:  # in the user's own code
        calls = traceback.extract_tb(error.__traceback__)
        lines = [call.lineno for call in calls if call.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines or [None])[-1]
        where = f"{path} line {line}" if line else str(path)
        what = " ".join(str((error.args or [""])[0]).split())
        return f"{where}: {what or type(error).__name__}"
    for key in [word.lstrip("-") for word in words]:
        if key.startswith("config.") and (
            wrong := unknown_key(config, key.removeprefix("config."))
        ):
            return f"--{key}: {wrong}"
    return ""


def unknown_key(config: Any, key: str) -> str:
    """Message about a dotted key that a (nested) config lacks; '' if it has the key."""
    group, known = config, "config"
    for name in key.split("."):
        names = list(group) if hasattr(group, "items") else []
        if name not in names:
            return f"{known} has no key {name!r}{suggest(name, names)}"
        group, known = group[name], f"{known}.{name}"
    return ""
