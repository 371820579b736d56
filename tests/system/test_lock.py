"""A lock is held by one process, names it, and does not outlive it."""

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_jax.system.files import path_of
from diffusion_jax.system.lock import LockedError, locked
from tests.forked import Forked
from tests.stores import in_memory

LOCK_AND_READ = """
import fcntl, sys
with open(sys.argv[1], "a+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is locked still
        file.seek(0)
        print(file.read())
"""


def hold(folder: Path) -> None:
    """Locks, and says that it did."""
    with locked(folder, "training"):
        (folder / "held").touch()
        if os.fork() == 0:  # as a data worker that outlives it
            time.sleep(5)
            os._exit(0)
        time.sleep(60)


def started(folder: Path) -> Forked:
    (folder / "held").unlink(missing_ok=True)
    process = Forked(folder / "log", hold, folder)
    while not (folder / "held").exists():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.01)
    return process


def test_the_second_is_refused_by_the_name_of_the_first_and_a_killed_one_leaves_no_lock(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    process = started(tmp_path)
    with (
        pytest.raises(
            LockedError, match=rf"process {process.pid} on {platform.node()} \(since .*\) is train"
        ),
        locked(tmp_path, "training"),
    ):
        pass
    with locked(tmp_path, "sampling"):  # is another matter
        pass
    os.kill(process.pid, signal.SIGKILL)
    with locked(tmp_path, "training", wait=True):  # also waits for a process that ends
        pass
    assert f"waiting: process {process.pid} " in capsys.readouterr().out
    with locked(tmp_path, "training"):
        pass
    assert not (tmp_path / ".training.lock").read_text()


def test_within_a_lock_it_is_not_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".training.lock"
    with locked(tmp_path / "new", "training"):
        with locked(tmp_path / "new", "training"):
            pass
        command = [sys.executable, "-c", LOCK_AND_READ, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["process"] == os.getpid()


@pytest.mark.parametrize("damaged", ["", '{"process": 1', "[]", "\0\0\0"])
def test_a_holder_that_says_nothing_is_another_process(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_jax.system.lock.LOOK_SECONDS", 0)
    monkeypatch.setattr(fcntl, "lockf", lambda *_: (_ for _ in ()).throw(BlockingIOError()))
    (tmp_path / ".training.lock").write_text(damaged)
    refused = pytest.raises(LockedError, match="another process is training")
    with refused, locked(tmp_path, "training"):
        pass


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    error = OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "lockf", lambda *_: (_ for _ in ()).throw(error))
    with locked(tmp_path, "training"):
        pass
    assert "has no locks (No locks available)" in capsys.readouterr().err


def test_in_a_store_the_holder_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory(monkeypatch)
    for name, seconds in (("BEAT", 0.1), ("LOOK", 0.01), ("PATIENCE", 60.0)):
        monkeypatch.setattr(f"diffusion_jax.system.beats.{name}_SECONDS", seconds)
    folder, own = path_of("s3://bucket/run"), os.getpid()
    with locked(folder, "training"):
        with locked(folder, "training"):
            pass
        monkeypatch.setattr("diffusion_jax.system.lock._held", set())  # as another process is
        monkeypatch.setattr(os, "getpid", lambda: 1)
        refused = pytest.raises(LockedError, match=rf"process {own} on .* is training there")
        with refused, locked(folder, "training"):
            pass
    assert not (folder / ".training.lock").exists()
