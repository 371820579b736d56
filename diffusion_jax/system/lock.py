"""A lock on a folder for one process, released by the kernel when its holder dies."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.system.beats import beating
from diffusion_jax.system.devices import gather, is_main
from diffusion_jax.system.stores import StorePath

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems without locks."""
LOOKS, LOOK_SECONDS = 20, 0.05  # attempts to read the holder's description, written at once
ANOTHER = "another process"
_held: set[Path] = set()


class LockedError(RuntimeError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(folder: Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Allows no other process to be `doing` the same in `folder`, which is created.

    Uses a POSIX lock on a permanent file that describes the holder: `fcntl.lockf` instead of
    `flock`, as it also holds between the machines of a network file system and is not inherited by
    forked children. In an object store the lock is an object that is rewritten (`beating`). Of a
    run's processes the first one takes the lock. It is a no-op if this process already holds it,
    and, with a warning, on file systems without locks.

    Raises:
        LockedError: another process holds it, which is named; with `wait`, waits instead.
    """
    path = (folder / f".{doing}.lock").absolute()
    if path in _held:
        yield
        return
    # Without other processes JAX is not queried: that would start it before its settings are made.
    together = jax.distributed.is_initialized()
    holder = ""
    with contextlib.ExitStack() as stack:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        about = {"host": platform.node(), "process": os.getpid(), "since": since}
        main = not together or is_main()
        if main and isinstance(path, StorePath):
            found = stack.enter_context(beating(path, about))
            holder = "" if found is None else _description(found) or ANOTHER
        elif main:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(FileIO(path, "a+"))
            holder = _take(file, about, path.parent, doing, wait)
            if not holder:
                stack.callback(file.truncate, 0)
        if together and not gather(np.array([not holder])).all():
            holder = holder or ANOTHER
        if holder:
            raise LockedError(
                f"{folder}: {holder} is {doing} there. Wait for its end, stop it, or choose "
                "another --workdir"
            )
        _held.add(path)
        stack.callback(_held.remove, path)
        yield


def _take(file: FileIO, about: Mapping[str, Any], folder: Path, doing: str, wait: bool) -> str:
    """Locks a file; returns the holder if another process has it."""
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if not wait:
                return _holder(file)
            print(f"waiting: {_holder(file)} is {doing} in {folder}", flush=True)
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(
            f"warning: {folder}: its file system has no locks ({error.strerror}), so another "
            f"process may be {doing} there",
            file=sys.stderr,
        )
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        file.truncate(0)
        file.write(json.dumps(about).encode())
    return ""


def _holder(file: FileIO) -> str:
    """The description that the holder of a locked file has written there."""
    for _ in range(LOOKS):
        file.seek(0)
        with contextlib.suppress(ValueError):
            if words := _description(json.loads(file.read())):
                return words
        time.sleep(LOOK_SECONDS)
    return ANOTHER


def _description(about: Any) -> str:
    """A holder's description in words, '' if it is damaged."""
    try:
        return f"process {about['process']} on {about['host']} (since {about['since']})"
    except (KeyError, TypeError):
        return ""
