"""Compares a run that is killed repeatedly with an undisturbed one, by the real command line.

PYTHONPATH=. python experiments/survival/kill.py --kills 200 --workdir /tmp/survival
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from configs import digits
from diffusion_jax import from_config, run
from diffusion_jax.data import train_batches
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.manifest import find_damage

ROOT = Path(__file__).parents[2]
STEPS = 2000
SMALL = {
    "model.dit.hidden_size": 32,
    "model.dit.depth": 2,
    "train.steps": STEPS,
    "train.batch_size": 16,
    "train.log_every": 1,
    "train.heldout_every": 0,
    "train.sample_every": 0,
}


class Process(Protocol):
    """The process to kill: a `subprocess.Popen`, or an object with its interface."""

    pid: int

    def poll(self) -> int | None:
        """Exit status, None while it runs."""

    def wait(self) -> int:
        """Waits for its end."""


def wait_for_write(process: Process, folder: Path) -> None:
    """Waits until leftovers of the last kill are gone and a checkpoint is being written."""
    for there in (False, True):
        while there != bool(list(folder.glob("*.orbax-checkpoint-tmp"))):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.001)


def kill_often(
    start: Callable[[], Process], folder: Path, kills: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Kills the processes that `start` starts, every second time while a checkpoint is written.

    Otherwise at any moment between its start and shortly after its first checkpoint. Checks after
    every kill that the newest checkpoint is undamaged, and not older than before.

    Yields:
        For every kill: its `number`, the `seconds` since the start, the `newest` step, whether a
        checkpoint was being written (`writing`) and the number of `unfinished` folders.
    """
    rng = random.Random(seed)
    began = time.monotonic()
    process = start()
    wait_for_write(process, folder)
    to_first_write = time.monotonic() - began
    newest = 0
    for number in range(kills):
        if number:
            began, process = time.monotonic(), start()
        if number % 2:
            wait_for_write(process, folder)
            # The machine may be faster than before: a run that has ended is not killed again.
            to_first_write = min(to_first_write, time.monotonic() - began)
            time.sleep(rng.uniform(0, 0.05 * to_first_write))
        else:
            time.sleep(rng.uniform(0, 1.1 * to_first_write))
        assert process.poll() is None, "it ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        seconds = time.monotonic() - began
        process.wait()
        saved = Checkpoints(folder).steps()
        last = max(saved, default=0)
        assert last >= newest, f"step {newest} was there and is lost; there are {saved}"
        assert not last or find_damage(folder / str(last)) is None, f"step {last} is damaged"
        newest = last
        unfinished = len(list(folder.iterdir())) - len(saved)
        yield {
            "number": number,
            "seconds": round(seconds, 2),
            "newest": newest,
            "writing": bool(number % 2),
            "unfinished": unfinished,
        }


def carried(config: Any, workdir: Path) -> list[np.ndarray]:
    """The final training state of a run, and the next batch."""
    made = run.Run(config, workdir, from_config.build(config))
    state, data = made.checkpoints.restore(made.abstract_state(), config.train.steps)
    batches = train_batches(
        made.parts.dataset,
        batch_size=config.train.batch_size,
        seed=config.seed,
        flip=config.data.flip,
        prefetch=0,
    )
    batches.set_state(data)
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state, data, next(batches)))]


def assert_same_bits(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    """Compares byte by byte: NaN equals itself, and 0 does not equal -0."""
    bits = [[(a.shape, a.dtype, a.tobytes()) for a in arrays] for arrays in (one, other)]
    different = sum(x != y for x, y in zip(*bits, strict=True))
    assert not different, f"{different} of {len(one)} arrays differ"


def main() -> None:
    """Kills, finishes, compares; writes a line of JSON for every kill to `kills.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no kill after these")
    parser.add_argument("--workdir", type=Path, required=True)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.workdir, ignore_errors=True)
    arguments.workdir.mkdir(parents=True)
    workdir = arguments.workdir.absolute()
    config = digits.get_config()
    config.update_from_flattened_dict(SMALL)
    small = [f"--config.{key}={value}" for key, value in SMALL.items()]

    def start(name: str, checkpoint_every: int) -> subprocess.Popen:
        command = [sys.executable, "launch.py", "--config", "configs/digits.py", "--mode", "train"]
        command += [f"--workdir={workdir / name}", f"--config.train.{checkpoint_every=}", *small]
        with (workdir / f"{name}.log").open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    assert start("whole", STEPS).wait() == 0
    began, kills, unfinished = time.monotonic(), 0, 0
    with (workdir / "kills.jsonl").open("w") as file:
        for kill in kill_often(
            lambda: start("killed", 2), workdir / "killed/checkpoints", arguments.kills
        ):
            kills, unfinished = kills + 1, unfinished + bool(kill["unfinished"])
            print(json.dumps(kill), file=file, flush=True)
            if time.monotonic() - began > 60 * arguments.minutes:
                break
    assert start("killed", 2).wait() == 0
    log = (workdir / "killed.log").read_text()
    print(
        f"{kills} kills in {time.monotonic() - began:,.0f} s, {unfinished} of them left "
        f"an unfinished checkpoint; {log.count('going on from step')} starts went on, "
        f"{log.count('Traceback')} tracebacks, {log.count('is damaged')} damaged checkpoints"
    )
    assert_same_bits(carried(config, workdir / "whole"), carried(config, workdir / "killed"))
    print("parameters, EMA, optimizer, step and next batch are the same to the bit")


if __name__ == "__main__":
    main()
