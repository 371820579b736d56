"""A second training in the same workdir is refused; a killed one leaves no lock."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import jax
import pytest

from diffusion_jax import from_config, run
from tests.forked import Forked
from tests.runs import random_dataset, tiny

pytestmark = pytest.mark.slow

TIMES = 20
STEPS = 12


def child(workdir: Path, cache: Path) -> None:
    """Trains, as `launch.py` would, but with everything imported and all programs cached."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    run.command.enable_compilation_cache = lambda: None
    from_config.data.load_dataset = lambda *a, **k: random_dataset()
    config = tiny(train__steps=STEPS, train__log_every=1, train__checkpoint_every=1)
    sys.exit(run.run(config, workdir, "train"))


def test_of_two_at_once_one_trains(tmp_path: Path) -> None:
    for number in range(TIMES):
        workdir = tmp_path / str(number)
        logs = [tmp_path / f"{number}_{i}.log" for i in range(2)]
        both = [Forked(log, child, workdir, tmp_path / "cache") for log in logs]
        statuses = [process.wait() for process in both]
        assert sorted(statuses) == [0, 2]
        first = both[statuses.index(0)]
        said = logs[statuses.index(2)].read_text()
        assert re.search(
            rf"error: .*: process {first.pid} on .* \(since .*\) is training there", said
        )
        assert "Traceback" not in said
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
        assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))


def test_one_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    for number in range(TIMES):
        workdir, log = tmp_path / str(number), tmp_path / f"{number}.log"
        process = Forked(log, child, workdir, tmp_path / "cache")
        while not list(workdir.glob("checkpoints/*")):
            assert process.poll() is None, log.read_text()
            time.sleep(0.001)
        assert json.loads((workdir / ".training.lock").read_text())["process"] == process.pid
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert (workdir / ".training.lock").read_text()  # the file stays, and says nothing true
        assert Forked(log, child, workdir, tmp_path / "cache").wait() == 0
