"""Ctrl-C and SIGTERM, by which a person and a scheduler ask a run to end."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], int]]:
    """Notes the first of `SIGNALS`, so that the step at hand is finished and saved.

    Yields:
        What returns the number of that signal, 0 before it came. A second one ends the process.
    """
    came: list[int] = []

    def note(signum: int, frame: Any) -> None:
        came.append(signum)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        name = signal.Signals(signum).name
        start = "\n" * os.isatty(2)  # there it stands behind a bar, and ^C
        # Not by print, which the signal may have interrupted.
        os.write(2, f"{start}{name}: saving after this step; a second ends at once\n".encode())

    before = {each: signal.signal(each, note) for each in SIGNALS}
    try:
        yield lambda: came[0] if came else 0
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
