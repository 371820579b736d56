"""Ctrl-C and SIGTERM, by which a person and a scheduler ask a run to end."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], int]]:
    """Notes the first of `SIGNALS`, so that the step at hand is finished and saved.

    Of several processes any one may get it; JAX then makes out a step at which all of them stop.

    Yields:
        What returns, given the number of steps taken, the number of that signal, 0 before it came.
        A second one ends the process.
    """
    several = jax.process_count() > 1
    came: list[int] = []

    def note(signum: int, frame: Any) -> None:
        came.append(signum)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        name = signal.Signals(signum).name
        start = "\n" * os.isatty(2)  # there it stands behind a bar, and ^C
        # Not by print, which the signal may have interrupted.
        os.write(2, f"{start}{name}: saving after this step; a second ends at once\n".encode())

    def pass_on(signum: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # for which JAX has a handler that tells the others

    def stopped(step: int) -> int:
        if several and not came and multihost_utils.reached_preemption_sync_point(step):
            came.append(signal.SIGTERM)
        return came[0] if came else 0

    handlers = {signal.SIGINT: pass_on} if several else dict.fromkeys(SIGNALS, note)
    before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
    try:
        yield stopped
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
