"""Files that are there whole or not at all, and stay when the machine goes down."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax


def path_of(setting: str | Path) -> Path:
    """The path that a setting or a flag names: `~` is the home of its user, if there is such."""
    return Path(os.path.expanduser(setting))


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


def sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
