"""The work of one process of a sweep, and how other processes follow its progress."""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.report import read_result
from diffusion_jax.run import run as run_one
from diffusion_jax.run import run_abreast
from diffusion_jax.run.command import TRAINING
from diffusion_jax.sweep.design import Run
from diffusion_jax.system.files import read_json, write_whole
from diffusion_jax.system.lock import locked

FINISHED = "finished.json"
CORES = "DIFFUSION_JAX_CORES"  # environment variable: CPU cores that the process may use
LEASH = "DIFFUSION_JAX_LEASH"  # environment variable: end when standard input closes


def units(runs: Sequence[Run], together: bool) -> list[list[Run]]:
    """Groups runs by process: alone, or with those that differ only in the seed (`together`)."""
    if not together:
        return [[run] for run in runs]
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(json.dumps(_config(run) | {"seed": None}), []).append(run)
    return list(found.values())


def work(runs: Sequence[Run], folder: Path) -> int:
    """Runs the runs of a unit; returns the first exit status that is not 0.

    Several runs that have not begun are trained together in one program.
    """
    if cores := os.environ.get(CORES):
        os.sched_setaffinity(0, map(int, cores.split(",")))  # before JAX starts threads
    if os.environ.get(LEASH):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    left = [run for run in runs if not finished(folder, run)]
    with contextlib.ExitStack() as stack:
        for run in left:
            # A previous process may still be saving its last step.
            stack.enter_context(locked(folder / run.name, TRAINING, wait=True))
        new = [run for run in left if not list((folder / run.name).glob("checkpoints/*"))]
        began, status = time.monotonic(), 0
        if len(new) > 1:
            status = run_abreast([run.config for run in new], [folder / run.name for run in new])
            if status > 2:  # stopped on request; after a failure each run is tried alone
                return status
        together = time.monotonic() - began
        shares = {run: together / len(new) for run in new}
        statuses = [_work_one(run, folder, shares.get(run, 0.0)) for run in left]
    return next((status for status in statuses if status), 0)


def _work_one(run: Run, folder: Path, before: float) -> int:
    print(f"== {run.name}", flush=True)
    began = time.monotonic()
    status = run_one(run.config, folder / run.name, "all")
    if not status:
        done = {"seconds": round(before + time.monotonic() - began, 1), "config": _config(run)}
        write_whole(folder / run.name / FINISHED, (json.dumps(done, indent=1) + "\n").encode())
    return status


def finished(folder: Path, run: Run) -> bool:
    """Whether a run with these settings is done, and its result is there."""
    left = _left_by(folder, run)
    if left is None or left["config"] != _config(run):
        return False
    return read_result(folder / run.name / "result.json") is not None


def seconds(folder: Path, run: Run) -> float:
    """Seconds that a finished run took, in the process that finished it."""
    left = _left_by(folder, run)
    return left["seconds"] if left else 0.0


def _left_by(folder: Path, run: Run) -> Any:
    def parse(saved: Any) -> dict[str, Any]:
        return {"seconds": float(saved["seconds"]), "config": saved["config"]}

    return read_json(folder / run.name / FINISHED, parse, "the run is checked again")


def step_of(folder: Path, run: Run) -> int:
    """The last step that a run has logged."""
    path = folder / run.name / "metrics.jsonl"
    steps = re.findall(rb'"step": (\d+)', path.read_bytes()) if path.exists() else []
    return int(steps[-1]) if steps else 0


def _config(run: Run) -> Any:
    """All settings, as read back from JSON."""
    return json.loads(json.dumps(run.config.to_dict()))


def _end_with_parent() -> None:
    """Sends SIGTERM to this process, which then saves, when its parent is gone."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
