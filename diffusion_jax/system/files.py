"""Files that are there whole or not at all, and stay when the machine goes down."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")
_told: set[Path] = set()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a file beside `path` to write to, which becomes `path` at the end, if it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: several processes may write the same.
    part = path.with_name(f"{path.name}.{jax.process_index()}-{os.getpid()}.part")
    try:
        yield part
        sync(part)
        part.replace(path)
    except BaseException:  # the disk is full, or someone stops it
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Writes `data` so that whoever stops it leaves no half of it at `path`."""
    with written_whole(path) as part:
        part.write_bytes(data)


def read_json(path: Path, parse: Callable[[Any], Result], remedy: str) -> Result | None:
    """What `parse` makes of a JSON file; None if it is not there or, which is said once, damaged.

    `parse` raises a KeyError, a TypeError, an AttributeError or a ValueError where a part of it is
    missing; `remedy` is what is done about that.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError):
        if path not in _told:
            print(f"warning: {path} is damaged: {remedy}", file=sys.stderr, flush=True)
        _told.add(path)
        return None


def sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
