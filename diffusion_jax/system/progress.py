"""Progress of long work: a bar on a terminal, occasional plain lines elsewhere.

Silent unless switched on, by `run.run` or in a notebook:

    with shown():
        open_run("runs/digits").draw(2000)

Items are counted on the host, between calls of a compiled program. Programs have no callbacks,
which would change them and prevent caching of the compiled program. During a call the elapsed time
grows and the time left decreases.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol, TextIO, TypeVar

import jax
from tqdm import tqdm

Item = TypeVar("Item")
DRAW_SECONDS = 0.2  # between two updates of a bar, and before the first
LINE_SECONDS = 10.0  # before the first plain line, and minimum between two
SPACING = 0.1  # minimum between two plain lines as a share of the elapsed time, for short logs
SIZE = {"ncols": 80, "nrows": 24}  # of a terminal whose size is unknown
RECENT_SECONDS = 60.0  # over which the rate is averaged
MARK_SECONDS = 0.05  # between two counts stored for the rate


class Display(Protocol):
    """How a stage is shown."""

    seconds: float  # between two calls of `show`

    def show(self, stage: "Stage") -> None:
        """Shows the stage as it is."""

    def close(self, stage: "Stage") -> None:
        """Clears the display, or shows the end."""


class Stage:
    """Progress of work on `total` items, of which `done` are done; silent without a display.

    Args:
        doing: the work, such as "sampling".
        total: number of items.
        done: number of items that were done before.
        display: called by a thread, so that it is updated while the main thread waits.
    """

    def __init__(
        self, doing: str, total: int, done: int = 0, display: Display | None = None
    ) -> None:
        self.doing, self.total, self.done = doing, total, min(done, total)
        self.note = ""  # shown next to the count
        self._apart = False
        self._began = self._noted = time.monotonic()
        self._marks = [(self._began, self.done)]  # replaced whole: a thread reads it
        self._display, self._ended = display, threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
        if display:
            self._thread.start()

    def advance(self, num: int = 1) -> None:
        """Counts `num` more items, up to `total`: the last batch may be filled up."""
        self.done, now = min(self.done + num, self.total), time.monotonic()
        marks = self._marks
        if now - marks[-1][0] > MARK_SECONDS:
            old = [mark for mark in marks if now - mark[0] < RECENT_SECONDS]
            self._marks = [*(old or [marks[-1]]), (now, self.done)]

    @contextlib.contextmanager
    def apart(self, note: str) -> Iterator[None]:
        """Shows a note such as "compiling"; the time within does not count for the rate."""
        self.note, self._apart, self._noted = note, True, time.monotonic()
        yield
        took = time.monotonic() - self._noted
        self._marks = [(when + took, done) for when, done in self._marks]
        self.note, self._apart = "", False

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Items per second in the last minute; 0 while unknown."""
        marks = self._marks
        (since, before), (until, after) = marks[0], marks[-1]
        return (after - before) / (until - since) if until > since else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left; None while unknown."""
        (when, done), rate = self._marks[-1], self.rate
        if not rate:
            return None
        now = self._noted if self._apart else time.monotonic()
        return max((self.total - done) / rate - (now - when), 0.0)

    def close(self) -> None:
        """Ends the display."""
        if self._display:
            self._ended.set()
            self._thread.join()
            self._display.close(self)

    def _tick(self) -> None:
        assert self._display
        with contextlib.suppress(OSError, ValueError):  # the stream is closed
            while not self._ended.wait(self._display.seconds):
                self._display.show(self)


class _Drawn(tqdm):  # type: ignore[type-arg, unused-ignore]
    """A bar of tqdm that shows a stage."""

    monitor_interval = 0  # no thread of its own

    def __init__(self, stage: Stage, stream: TextIO, leave: bool) -> None:
        self.stage = stage
        form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{more}]"
        known = False
        with contextlib.suppress(OSError):
            known = os.get_terminal_size(stream.fileno()).columns > 0
        size: dict[str, Any] = {"dynamic_ncols": True} if known else SIZE
        super().__init__(total=stage.total, file=stream, leave=leave, bar_format=form, **size)

    @property
    def format_dict(self) -> dict[str, Any]:
        stage = self.stage
        more, note = "", f", {stage.note}" if stage.note else ""
        if (left := stage.left) is not None:
            rate = stage.rate
            pace = f"{tqdm.format_sizeof(rate)}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
            more = f"<{tqdm.format_interval(left)}, {pace}"
        own = {
            "n": stage.done,
            "prefix": stage.doing,
            "elapsed": stage.elapsed,
            "more": more + note,
        }
        return {**super().format_dict, **own}


class Bar:
    """On a terminal: count, elapsed time, time left and rate; cleared at the end unless `leave`."""

    seconds = DRAW_SECONDS

    def __init__(self, stream: TextIO, leave: bool = False) -> None:
        self._stream, self._leave = stream, leave
        self._bar: _Drawn | None = None

    def show(self, stage: Stage) -> None:
        if self._bar is None:
            self._bar = _Drawn(stage, self._stream, self._leave)
        else:
            self._bar.refresh()

    def close(self, stage: Stage) -> None:
        if self._leave and self._bar is None:  # it ended before the first update
            self.show(stage)
        if self._bar is not None:
            self._bar.close()


class Lines:
    """In a log: "sampling: 1,024 of 2,000, 00:12 left"; nothing for work of a few seconds."""

    seconds = 0.5

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._next, self._said = stream, LINE_SECONDS, False

    def show(self, stage: Stage) -> None:
        elapsed = stage.elapsed
        if elapsed < self._next:
            return
        self._next, self._said = elapsed + max(LINE_SECONDS, SPACING * elapsed), True
        left, note = stage.left, f", {stage.note}" if stage.note else ""
        about = tqdm.format_interval(elapsed) + " so far"
        if left is not None:
            about = tqdm.format_interval(left) + " left"
        self._print(stage, f"{about}{note}")

    def close(self, stage: Stage) -> None:
        if self._said:
            with contextlib.suppress(OSError, ValueError):
                self._print(stage, f"took {tqdm.format_interval(stage.elapsed)}")

    def _print(self, stage: Stage, words: str) -> None:
        line = f"{stage.doing}: {stage.done:,} of {stage.total:,}, {words}"
        print(line, file=self._stream, flush=True)


_stream: ContextVar[TextIO | None] = ContextVar("stream", default=None)
_current: ContextVar[Stage | None] = ContextVar("current", default=None)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Context: stages are shown on stderr, by the main process."""
    # A single process does not query JAX, which would start it before it is configured.
    main = not jax.distributed.is_initialized() or jax.process_index() == 0
    token = _stream.set(sys.stderr if main else None)
    try:
        yield
    finally:
        _stream.reset(token)


def _begin(doing: str, total: int, done: int = 0) -> Stage:
    stream = _stream.get()
    if stream is None or done >= total:
        return Stage(doing, total, done)
    return Stage(doing, total, done, (Bar if stream.isatty() else Lines)(stream))


@contextlib.contextmanager
def stage(doing: str, total: int, done: int = 0) -> Iterator[Stage]:
    """Context: shows work on `total` items, of which `done` were done before; see `advance`.

    Within a stage of the same name it is that stage: many small calls are shown as one.
    """
    outer = _current.get()
    if outer is not None and outer.doing == doing:
        yield outer
        return
    made = _begin(doing, total, done)
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)
        made.close()


def tracked(items: Iterable[Item], doing: str, total: int) -> Iterator[Item]:
    """Iterates over `total` items, each counted when the next one is requested."""
    made = _begin(doing, total)
    try:
        for item in items:
            yield item
            made.advance()
    finally:
        made.close()
