"""Warnings about a stalled data pipeline."""

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any


class StallWatch:
    """Warns on stderr when no batch arrives for `seconds`, and again each time this doubles.

    A thread watches the clock; a step costs two assignments.

    Args:
        batches: the iterator of batches.
        seconds: time without a batch before the first warning.
    """

    def __init__(self, batches: Iterator[Any], seconds: float) -> None:
        self._batches, self._seconds = batches, seconds
        self._since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stalls", daemon=True)

    def __enter__(self) -> "StallWatch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._thread.join()

    def __next__(self) -> Any:
        self._since = time.monotonic()
        try:
            return next(self._batches)
        finally:
            self._since = None

    def _look(self) -> None:
        said, limit = None, self._seconds
        while not self._closed.wait(self._seconds / 4):
            since = self._since
            if since is None or since != said:
                said, limit = since, self._seconds
            if since is not None and (waited := time.monotonic() - since) >= limit:
                limit *= 2
                clock = time.strftime("%H:%M:%S", time.localtime(time.time() - waited))
                print(
                    f"warning: no batch of data for {waited:.0f} s, since {clock}; still waiting",
                    file=sys.stderr,
                    flush=True,
                )
