"""Signals by which a person, a scheduler and a terminal that closes ask a run to end."""

import contextlib
import os
import signal
import stat
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUSES = (0, *(128 + signum for signum in SIGNALS))
"""Exit statuses of a process that did all that it was asked to, or was asked to stop."""


def heard() -> list[int]:
    """`SIGNALS`, without that of a closed terminal where nohup said so."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [each for each in SIGNALS if not (ignored and each == signal.SIGHUP)]


def leave_terminal() -> None:
    """Lets output go nowhere that went to a terminal: one that is closed would fail every print."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):  # closed already
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], int]]:
    """Notes the first of `SIGNALS`, so that the step at hand is finished and saved.

    Of several processes any one may get it; JAX then makes out a step at which all of them stop.

    Yields:
        What returns, given the number of steps taken, the number of that signal, 0 before it came.
        A second one ends the process.
    """
    several, mine = jax.process_count() > 1, heard()
    came: list[int] = []

    def note(signum: int, frame: Any) -> None:
        came.append(signum)
        for each in mine:
            signal.signal(each, signal.SIG_DFL)
        if signum == signal.SIGHUP:
            leave_terminal()
            signal.signal(signum, signal.SIG_IGN)  # the shell and the kernel both send it
        name = signal.Signals(signum).name
        start = "\n" * os.isatty(2)  # there it stands behind a bar, and ^C
        # Not by print, which the signal may have interrupted.
        os.write(2, f"{start}{name}: saving after this step; a second ends at once\n".encode())

    def pass_on(signum: int, frame: Any) -> None:
        if signum == signal.SIGHUP:
            leave_terminal()
        os.kill(os.getpid(), signal.SIGTERM)  # for which JAX has a handler that tells the others

    def stopped(step: int) -> int:
        if several and not came and multihost_utils.reached_preemption_sync_point(step):
            came.append(signal.SIGTERM)
        return came[0] if came else 0

    if several:
        mine.remove(signal.SIGTERM)
    before = {each: signal.signal(each, pass_on if several else note) for each in mine}
    try:
        yield stopped
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
