"""Progress: what a terminal and a log are shown, when, and that a library call shows nothing."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from diffusion_jax.run import command
from diffusion_jax.system import devices, progress
from diffusion_jax.system.progress import Lines, Stage, shown, stage, tracked


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What is on stderr, no terminal, with plain lines every tenth of a second."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.1)
    monkeypatch.setattr(Lines, "seconds", 0.02)
    return lambda: capsys.readouterr().err


def work(steps: int = 5, seconds: float = 0.1) -> None:
    with stage("sampling", 2000) as about:
        for _ in range(steps):
            time.sleep(seconds)
            about.advance(256)


def test_a_library_call_is_silent(log):
    work()
    assert list(tracked(range(3), "reading", 3)) == [0, 1, 2]
    assert log() == ""


def test_a_log_has_plain_lines_with_the_time_left(log):
    text, began = "", time.monotonic()
    with shown(), stage("sampling", 2000) as about:
        while " left" not in text and about.done < 2000:  # however late the thread is
            time.sleep(0.05)
            about.advance(2)
            text += log()
        done = about.done
    assert " left" in text
    assert len(text.splitlines()) <= (time.monotonic() - began) / progress.LINE_SECONDS
    for line in text.splitlines():
        assert re.fullmatch(r"sampling: [\d,]+ of 2,000, \d\d:\d\d (so far|left)", line)
    assert re.fullmatch(rf"sampling: {done:,} of 2,000, took \d\d:\d\d\n", log())


def test_the_time_left_is_that_of_the_recent_rate():
    stream, about, now = io.StringIO(), Stage("sampling", 2000), time.monotonic()
    about.done, about._began, about._marks = 512, now - 50, [(now - 20, 0), (now, 512)]
    Lines(stream).show(about)
    assert re.fullmatch(r"sampling: 512 of 2,000, 00:5\d left\n", stream.getvalue())


def test_what_takes_seconds_leaves_no_line(log, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 10.0)
    with shown():
        work()
    assert log() == ""


def test_plain_lines_get_rarer(monkeypatch):
    stream, about = io.StringIO(), Stage("sampling", 10)
    lines = Lines(stream)
    for second in range(3600):
        about._began = time.monotonic() - second
        lines.show(about)
    assert 30 < len(stream.getvalue().splitlines()) < 60


def test_a_terminal_has_a_bar_that_is_cleared(monkeypatch):
    monkeypatch.setattr(progress, "DRAW_SECONDS", 0.02)
    monkeypatch.setattr(progress.Bar, "seconds", 0.02)
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    with shown():
        work()
    frames = stream.getvalue().split("\r")
    assert any("512/2000" in frame and "<00:0" in frame and "/s]" in frame for frame in frames)
    assert not "".join(frames[-2:]).strip()
    assert "\n" not in stream.getvalue()


def test_the_bar_is_there_while_the_first_batch_compiles(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    seen = []

    def program(whole, each):  # what blocks the main thread, as a compiler does
        time.sleep(0.8)
        seen.append(stream.getvalue())
        return each

    with shown():
        found = devices.in_batches(program, (), np.arange(5.0), 3, "sampling")
    np.testing.assert_array_equal(found, np.arange(5.0))
    assert "sampling:   0%" in seen[0]
    assert "0/5 [00:00, compiling]" in seen[0]
    assert "compiling" not in seen[1][len(seen[0]) :].rpartition("\r")[2]


def test_many_calls_in_a_stage_of_their_name_are_one(log):
    with shown(), stage("features", 12) as outer:
        for _ in range(2):
            devices.in_batches(lambda whole, each: each, (), np.arange(6.0), 4, "features")
        assert outer.done == 12
        with stage("sampling", 3) as inner:
            assert inner is not outer


def test_a_filled_up_batch_counts_what_there_is():
    about = Stage("sampling", 5)
    about.advance(8)
    assert about.done == 5


def test_time_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    about = Stage("sampling", 1000)
    assert about.left is None
    with about.apart("compiling"):
        clock[0] = 50.0
        assert about.left is None
    clock[0] = 60.0
    about.advance(100)
    assert about.rate == 10.0  # compilation does not count
    assert about.left == 90.0
    clock[0] = 64.0
    assert about.left == 86.0  # it falls within a batch too
    with about.apart("compiling"):
        clock[0] = 99.0
        assert about.left == 86.0


def test_it_ends_with_an_error(log):
    with pytest.raises(ZeroDivisionError), shown(), stage("sampling", 3) as about:
        raise ZeroDivisionError
    assert not about._thread.is_alive()
    with pytest.raises(ZeroDivisionError), shown():
        for _ in tracked((1 / 0 for _ in range(3)), "reading", 3):
            pass


def test_only_the_first_process_shows_it(log, monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with shown():
        work()
    assert log() == ""


def test_a_real_terminal():
    code = (
        "import time; from diffusion_jax.system.progress import shown, stage\n"
        "with shown(), stage('sampling', 2000) as about:\n"
        "    for _ in range(3): time.sleep(0.3); about.advance(500)\n"
        "print('done')"
    )
    master, end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdout=end, stderr=end):
        os.close(end)
        parts = []
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the end of a terminal on Linux
                break
            if not part:
                break
            parts.append(part)
    os.close(master)
    text = b"".join(parts).decode()
    assert "500/2000 [00:00<" in text
    assert text.endswith("\rdone\r\n")


def test_a_run_shows_its_progress(log, tmp_path):
    def job() -> int:
        work()
        return 0

    assert command._status(job, tmp_path) == 0
    assert re.search(r"sampling: [\d,]+ of 2,000, \d", log())
