"""A lock on a folder in an object store, where the kernel cannot release a dead process's lock.

The lock is an object that only one process can create. Its holder rewrites it every
`BEAT_SECONDS`: if it does not change for `PATIENCE_SECONDS`, its holder was killed.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from diffusion_jax.system.progress import stage
from diffusion_jax.system.stores import StorePath

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 1.0
RACE_SECONDS = 2.0  # after taking over a stale lock, wait this long for others that do the same


@contextlib.contextmanager
def beating(path: StorePath, about: Mapping[str, Any]) -> Iterator[Any]:
    """Yields None while this process holds the lock at `path`, else the holder's description.

    `about` is the description of this process, with its `host` and `process`.
    """
    own = {**about, "token": uuid.uuid4().hex}
    if holder := _take(path, own):
        yield holder
        return
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, own, ended), name="lock", daemon=True)
    thread.start()
    try:
        yield None
    finally:
        ended.set()
        thread.join()
        if _is_held_by(path, own):
            path.unlink(missing_ok=True)


def _take(path: StorePath, own: Mapping[str, Any]) -> Any:
    """Takes the lock, also a stale one; returns None, or the holder."""
    left_over = False
    while not path.create(_encoded(own, 0)):
        seen, since = _read(path), time.monotonic()
        doing = f"waiting for a sign of process {seen.get('process')}" if seen else ""
        with stage(doing, int(PATIENCE_SECONDS)) as progress:
            while seen and not _is_gone(seen, own) and time.monotonic() - since < PATIENCE_SECONDS:
                time.sleep(LOOK_SECONDS)
                progress.advance(int(LOOK_SECONDS))
                if (now := _read(path)) != seen:
                    if now:
                        return now
                    seen = now
        if seen:
            left_over = True
            path.unlink(missing_ok=True)
    if left_over:
        time.sleep(RACE_SECONDS)
        if not _is_held_by(path, own):
            return _read(path)
    return None


def _is_gone(seen: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended, or had this one's id."""
    if seen.get("host") != own["host"]:
        return False
    if seen.get("process") == own["process"]:  # e.g. in a restarted container
        return True
    try:
        os.kill(int(seen["process"]), 0)
    except ProcessLookupError:
        return True
    except (KeyError, TypeError, ValueError, PermissionError):
        pass
    return False


def _beat(path: StorePath, own: Mapping[str, Any], ended: threading.Event) -> None:
    number = 0
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # the next write may succeed
            if not _is_held_by(path, own):
                print(f"error: another process has taken {path}; stopping", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            number += 1
            path.write_bytes(_encoded(own, number))


def _encoded(own: Mapping[str, Any], beat: int) -> bytes:
    return json.dumps({**own, "beat": beat}).encode()


def _read(path: StorePath) -> Any:
    """Contents of the lock; None if it does not exist."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {"damaged": True}


def _is_held_by(path: StorePath, own: Mapping[str, Any]) -> bool:
    return (_read(path) or {}).get("token") == own["token"]
