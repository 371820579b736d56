"""Signals that ask a run to stop: from a person, a scheduler or a closing terminal."""

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
"""Exit statuses of a process that has finished, or was asked to stop."""


def heard() -> list[int]:
    """`SIGNALS`, without SIGHUP under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [each for each in SIGNALS if not (ignored and each == signal.SIGHUP)]


def leave_terminal() -> None:
    """Redirects output from the terminal to nowhere: prints to a closed one would fail."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):  # closed already
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], int]]:
    """Records the first of `SIGNALS`, so that the current step is finished and saved.

    With several processes any one may receive it; JAX then finds a step at which all can stop.

    Yields:
        A function from the number of steps taken to the number of that signal, or 0 before it
        arrives. A second signal ends the process.
    """
    several, mine = jax.process_count() > 1, heard()
    came: list[int] = []

    def note(signum: int, frame: Any) -> None:
        came.append(signum)
        for each in mine:
            signal.signal(each, signal.SIG_DFL)
        if signum == signal.SIGHUP:
            leave_terminal()
            signal.signal(signum, signal.SIG_IGN)  # both the shell and the kernel send it
        name = signal.Signals(signum).name
        start = "\n" * os.isatty(2)  # after a progress bar and ^C
        # Not by print, which the signal may have interrupted.
        os.write(2, f"{start}{name}: saving after this step; a second ends at once\n".encode())

    def pass_on(signum: int, frame: Any) -> None:
        if signum == signal.SIGHUP:
            leave_terminal()
        os.kill(os.getpid(), signal.SIGTERM)  # JAX's handler of SIGTERM tells the other processes

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
