"""Compares a run in an object store, killed and resumed, with an undisturbed one on a disk.

PYTHONPATH=. python experiments/survival/stores.py --workdir /tmp/stores
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
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from PIL import Image
from sklearn.datasets import load_digits

from configs import digits
from diffusion_jax.system.files import path_of, remove_tree
from diffusion_jax.system.pictures import opened
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.manifest import find_damage
from experiments.survival.emulators import BUCKET, NEEDED, emulated, missing
from experiments.survival.kill import assert_same_bits, carried

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
IMAGES = 240
SMALL = {
    **{"model.dit.hidden_size": 32, "model.dit.depth": 2, "data.name": "folder"},
    **{"train.batch_size": 16, "train.log_every": 5, "train.heldout_every": 0},
    **{"train.sample_every": 0, "train.checkpoint_every": 5, "sample.num_images": 20},
    **{"sample.steps": 10, "evaluate.num_samples": 60, "evaluate.bootstrap": 10},
    **{"evaluate.extractor": "entries", "evaluate.metrics": "distances,denoising"},
}


def make_data(folder: Path) -> None:
    """Digits as PNGs, each in the folder of its class."""
    found = load_digits()
    for number in range(IMAGES):
        path = folder / str(found.target[number]) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((found.images[number] * 15).astype(np.uint8)).save(path)


def settings_of(data: Path, steps: int) -> dict[str, Any]:
    """Settings of a run with this many steps on this data."""
    return {**SMALL, "data.dir": str(data), "train.steps": steps}


def start(workdir: Path, settings: dict[str, Any], mode: str, log: Path) -> subprocess.Popen:
    """Starts the real command line in a separate process."""
    command = [sys.executable, "launch.py", "--config", "configs/digits.py", "--mode", mode]
    command += [f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in settings.items())]
    with log.open("a") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)


def kill(workdir: Path, settings: dict[str, Any], kills: int, log: Path) -> list[int]:
    """Kills a training repeatedly, shortly after its next checkpoint; the newest step after each.

    Checks each time that the newest checkpoint is undamaged, and not older than before.
    """
    rng, newest = random.Random(0), [0]
    for _ in range(kills):
        process = start(workdir, settings, "train", log)
        while max(Checkpoints(workdir / "checkpoints").steps(), default=0) <= newest[-1]:
            assert process.poll() is None, f"it ended before it was killed: {log}"
            time.sleep(0.2)
        time.sleep(rng.uniform(0, 2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        step = max(Checkpoints(workdir / "checkpoints").steps())
        assert step >= newest[-1], f"step {newest[-1]} was there and is lost"
        assert find_damage(workdir / "checkpoints" / str(step)) is None, f"step {step} is damaged"
        newest.append(step)
    return newest[1:]


def left_by(workdir: Path, settings: dict[str, Any]) -> tuple[list[np.ndarray], Any, list[int]]:
    """The final training state, the figures, and the logged steps."""
    config = digits.get_config()
    config.update_from_flattened_dict(settings)
    arrays = carried(config, workdir)
    arrays.append(np.asarray(opened(workdir / "samples" / "grid.png")))
    result = json.loads((workdir / "result.json").read_text(encoding="utf-8"))
    figures = {
        name: [entry[key] for key in ("value", "low", "high")] for name, entry in result.items()
    }
    rows = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = sorted({row["step"] for row in map(json.loads, rows) if "loss" in row})
    return arrays, figures, steps


def compare(scheme: str, folder: Path, steps: int, kills: int) -> dict[str, Any]:
    """Kills, resumes, samples and evaluates in a store, and compares it with a disk."""
    log, local = folder / f"{scheme}.log", folder / "local"
    bucket = path_of(f"{scheme}://{BUCKET}")
    (bucket / "data").upload(folder / "data")  # type: ignore[attr-defined]
    settings = settings_of(bucket / "data", steps)
    killed = kill(bucket / "run", settings, kills, log)
    assert start(bucket / "run", settings, "all", log).wait() == 0, log
    on_disk = settings_of(folder / "data", steps)
    if not (local / "result.json").exists():
        assert start(local, on_disk, "all", folder / "local.log").wait() == 0, folder / "local.log"
    theirs, ours = left_by(local, on_disk), left_by(bucket / "run", settings)
    assert_same_bits(theirs[0], ours[0])
    assert theirs[1:] == ours[1:]
    return {"store": scheme, "killed_at": killed, "arrays": len(ours[0]), "same_bits": True}


def time_checkpoints(folder: Path, numbers: int, repeats: int) -> list[tuple[float, float]]:
    """Seconds until `save` returns and until the manifest is written, for several checkpoints."""
    state = {f"p{i}": jnp.arange(numbers // 10, dtype=jnp.float32) + i for i in range(10)}
    checkpoints, found = Checkpoints(folder), []
    checkpoints.open()
    for step in range(1, repeats + 2):
        began = time.monotonic()
        checkpoints.save(step, state, {})
        returned = time.monotonic() - began
        checkpoints.wait()
        found.append((returned, time.monotonic() - began))
    remove_tree(folder)
    return found[1:]  # the first one includes imports and connecting


def main() -> None:
    """Prints a line of JSON for each store, and writes it to `stores.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--numbers", type=int, default=8_000_000, help="float32, of a checkpoint")
    arguments = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    folder = arguments.workdir.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    make_data(folder / "data")
    with (folder / "stores.jsonl").open("w") as file:
        for scheme in NEEDED:
            if absent := missing(scheme):
                sys.exit(
                    f"{', '.join(absent)}: pip install -r experiments/survival/requirements.txt"
                )
            with emulated(scheme) as environment:
                os.environ |= environment
                found = compare(scheme, folder, arguments.steps, arguments.kills)
                how = arguments.numbers, arguments.repeats
                for name, place in (
                    ("disk", folder / "timed"),
                    (scheme, path_of(f"{scheme}://{BUCKET}/timed")),
                ):
                    saved, there = np.transpose(time_checkpoints(place, *how)).round(3).tolist()
                    found |= {f"{name}_save": saved, f"{name}_there": there}
                ratio = np.median(found[f"{scheme}_there"]) / np.median(found["disk_there"])
                found["ratio"] = round(float(ratio), 2)
                print(json.dumps(found), file=file, flush=True)
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
