"""Files that are there whole or not at all, and stay when the machine goes down."""

import os
from pathlib import Path

import jax


def write_whole(path: Path, data: bytes) -> None:
    """Writes `data` beside `path` first, so that whoever stops it leaves no half of it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: several processes may write the same.
    part = path.with_name(f"{path.name}.{jax.process_index()}-{os.getpid()}.part")
    try:
        part.write_bytes(data)
        sync(part)
        part.replace(path)
    except OSError:  # the disk is full
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
