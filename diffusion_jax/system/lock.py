"""One process at a time in a folder: a lock that the kernel takes back when its holder dies."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from diffusion_jax.system.beats import beating
from diffusion_jax.system.devices import gather, is_main
from diffusion_jax.system.stores import StorePath

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Of file systems that lock nothing."""
LOOKS, LOOK_SECONDS = 20, 0.05  # at what a holder says of itself, which it writes at once
_held: set[Path] = set()


class LockedError(RuntimeError):
    """Another process is at work there."""


@contextlib.contextmanager
def locked(folder: Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Within it no other process is `doing` the same in `folder`, which is made.

    By a POSIX lock on a file there that stays and says who holds it: `fcntl.lockf` and not
    `flock`, as it also holds between the machines of a network file system, and no child that was
    forked keeps it. In an object store by an object that beats. Of several processes of a run the
    first one locks. Within a lock that this process holds it is a no-op; on a file system without
    locks too, which is said.

    Raises:
        LockedError: another process holds it, which is named; with `wait` it is waited for.
    """
    path = (folder / f".{doing}.lock").absolute()
    if path in _held:
        yield
        return
    # Alone, JAX is not asked: that would start it before its settings are made.
    together = jax.distributed.is_initialized()
    holder = ""
    with contextlib.ExitStack() as stack:
        if not together or is_main():
            take = _object_taken if isinstance(path, StorePath) else _file_taken
            holder = stack.enter_context(take(path, doing, wait))
        if together and not gather(np.array([not holder])).all():
            holder = holder or "another process"
        if holder:
            raise LockedError(
                f"{folder}: {holder} is {doing} there. Wait for its end, stop it, or choose "
                "another --workdir"
            )
        _held.add(path)
        stack.callback(_held.remove, path)
        yield


@contextlib.contextmanager
def _file_taken(path: Path, doing: str, wait: bool) -> Iterator[str]:
    """Yields '' while this process has the lock on a file, else who holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(FileIO(path, "a+"))
        holder = _take(file, path.parent, doing, wait)
        if not holder:
            stack.callback(file.truncate, 0)
        yield holder


@contextlib.contextmanager
def _object_taken(path: Path, doing: str, wait: bool) -> Iterator[str]:
    """The same of an object of a store; what waits, sweeps, needs a disk."""
    with beating(cast(StorePath, path), _about()) as holder:
        yield _words(holder) if holder else ""


def _take(file: FileIO, folder: Path, doing: str, wait: bool) -> str:
    """Locks a file; who holds it if that cannot be."""
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
            f"warning: {folder}: its file system has no locks ({error.strerror}): that no other "
            f"process is {doing} there is not known",
            file=sys.stderr,
        )
    with contextlib.suppress(OSError):  # the disk is full: it is locked all the same
        file.truncate(0)
        file.write(json.dumps(_about()).encode())
    return ""


def _about() -> dict[str, Any]:
    """What this process says of itself."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": platform.node(), "process": os.getpid(), "since": since}


def _words(about: Any) -> str:
    """What a holder says of itself; a KeyError, TypeError or ValueError if it does not."""
    return f"process {about['process']} on {about['host']} (since {about['since']})"


def _holder(file: FileIO) -> str:
    """What the holder of a locked file has written there, in words."""
    for _ in range(LOOKS):
        file.seek(0)
        try:
            return _words(json.loads(file.read()))
        except (KeyError, TypeError, ValueError):
            time.sleep(LOOK_SECONDS)
    return "another process"
