"""Worker processes that read data: none dies before the main process, and none outlives it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys
from diffusion_jax.data import DataError, load_dataset, train_batches

if __name__ == "__main__":
    asked = []
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, frame: asked.append(number))
    folder = load_dataset("folder", memory=False, data_dir=sys.argv[1], heldout_fraction=0)
    batches = train_batches(folder, batch_size=4, seed=0, num_workers=2)
    next(batches)
    print("ready", flush=True)
    try:
        while not asked:
            next(batches)
        for _ in range(20):
            next(batches)
        print("went on", flush=True)
    except DataError as error:
        print(error, flush=True)
    batches.close()
"""


@pytest.fixture
def main(tmp_path):
    """The main process, in a group of its own, whose workers are running."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photos" / "0.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path / "photos"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def members(group: int) -> list[int]:
    """Live processes of a group, but for its leader."""
    found = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True)
    rows = [line.split() for line in found.stdout.splitlines()]
    return [
        int(pid)
        for pid, of, state in rows
        if int(of) == group and int(pid) != group and state[0] != "Z"
    ]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_go_on_where_a_signal_asks_all_to_stop(main, signum):
    os.killpg(main.pid, signum)
    said = main.stdout.read()
    assert main.wait() == 0
    assert said == "went on\n"


def test_workers_end_with_a_main_process_that_is_killed(main):
    assert len(members(main.pid)) >= 2
    main.kill()
    until = time.monotonic() + 20
    while members(main.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert members(main.pid) == []


def test_a_worker_that_is_killed_is_said(main):
    for pid in members(main.pid):
        os.kill(pid, signal.SIGKILL)
    assert "a worker process that reads data (data.num_workers) was killed" in main.stdout.read()
    assert main.wait() == 0
