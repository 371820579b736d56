"""One process at a time in a folder of an object store, where no kernel takes a lock back.

An object that is created but once says who holds the folder. Its holder writes it anew every
`BEAT_SECONDS`: one that stays as it is for `PATIENCE_SECONDS` is of a process that was killed.
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
RACE_SECONDS = 2.0  # two that find the same lock left over see within it who came last


@contextlib.contextmanager
def beating(path: StorePath, about: Mapping[str, Any]) -> Iterator[Any]:
    """Yields None while this process holds the lock at `path`, else what its holder says of itself.

    `about` is what this one says, its `host` and `process` among it.
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
        if _is_of(path, own):
            path.unlink(missing_ok=True)


def _take(path: StorePath, own: Mapping[str, Any]) -> Any:
    """Takes the lock, also one that was left over; None, or its holder."""
    left_over = False
    while not path.create(_words(own, 0)):
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
        if not _is_of(path, own):
            return _read(path)
    return None


def _is_gone(seen: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a holder was a process of this machine that has ended, or had this one's number."""
    if seen.get("host") != own["host"]:
        return False
    if seen.get("process") == own["process"]:  # as in a container that was started again
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
        with contextlib.suppress(OSError):  # the next one may come through
            if not _is_of(path, own):
                print(f"error: another process has taken {path}; this one ends", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            number += 1
            path.write_bytes(_words(own, number))


def _words(own: Mapping[str, Any], beat: int) -> bytes:
    return json.dumps({**own, "beat": beat}).encode()


def _read(path: StorePath) -> Any:
    """What the lock says; None if it is not there."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {"damaged": True}


def _is_of(path: StorePath, own: Mapping[str, Any]) -> bool:
    return (_read(path) or {}).get("token") == own["token"]
