"""A photograph larger than the network's pictures: memory, time, and seams. See large.md.

Each call restores one picture at the command line, in a process of its own, and adds a row to
`large.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from configs import photographs
from diffusion_jax.restoration.tiles import tiled
from diffusion_jax.types import Denoised

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PHOTOGRAPH = "usr/share/backgrounds/Bridge_by_Sander_Klootwijk.jpg"
CENTRE = 1424, 2800
"""Of all crops, in rows and columns of the photograph as it is stored."""
DAMAGE = {"restore.operator": "blur", "restore.blur.width": 2.0, "restore.sigma": 0.05}
SAMPLES = 2


def crop(photograph: Path, side: int) -> Image.Image:
    """The middle of the photograph, `side` pixels wide, not resized."""
    top, left = (centre - side // 2 for centre in CENTRE)
    return Image.open(photograph).convert("RGB").crop((left, top, left + side, top + side))


def arguments(workdir: Path, picture: Path, settings: dict[str, Any]) -> list[str]:
    """The command line that restores a picture."""
    given = {
        **DAMAGE,
        "restore.simulate": True,
        "restore.num_samples": SAMPLES,
        "sample.sampler": "ddim",
        **settings,
    }
    return [
        *("launch.py", "--config", "configs/photographs.py", "--workdir", str(workdir)),
        *("--mode", "restore", "--restore", str(picture)),
        *(f"--config.{key}={value}" for key, value in given.items()),
    ]


def measured(command: list[str]) -> dict[str, float]:
    """Runs a command of Python: its seconds, those of the CPU, and its peak memory in MiB.

    Raises:
        CalledProcessError: it fails.
    """
    start = time.monotonic()
    child = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return {
        "seconds": round(time.monotonic() - start, 1),
        "cpu seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak MiB": round(used.ru_maxrss / 2**10),  # Linux counts in KiB
    }


def seams(side: int, size: int, overlap: int) -> list[np.ndarray]:
    """Of each two neighbouring tiles: between which entries `i, i + 1` their weights change."""
    places = jnp.arange(side, dtype=jnp.float32).reshape(1, side, 1)
    first = tiled(lambda x, t, cond: Denoised(0 * x + x[:, :1]), size, overlap)
    lines = np.flatnonzero(np.diff(first(places, jnp.ones(1), {}).x_0[0, :, 0]))
    return np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)


def gradients(x: np.ndarray, size: int, overlap: int) -> np.ndarray:
    """Mean absolute differences of `x` `[..., N, N, C]` at seams and beside: `[seams, 2]`.

    Of both axes. Beside are the lines half a tile to either side, which belong to one tile alone.
    """
    shift, found = (size - overlap) // 2, []
    for axis in (-3, -2):
        steps = np.abs(np.diff(x, axis=axis))
        profile = np.moveaxis(steps, axis, -1).reshape(-1, steps.shape[axis]).mean(0)
        for lines in seams(x.shape[axis], size, overlap):
            beside = np.concatenate([lines - shift, lines + shift])
            found.append((profile[lines].mean(), profile[beside].mean()))
    return np.array(found)


def ratio(pairs: np.ndarray, seed: int = 0) -> list[float]:
    """Differences at seams over those beside, with a 95% interval: bootstrap over seams."""
    rng = np.random.default_rng(seed)
    taken = pairs[rng.integers(len(pairs), size=(2000, len(pairs)))].sum(1)
    low, high = np.quantile(taken[:, 0] / taken[:, 1], [0.025, 0.975])
    at, beside = pairs.sum(0)
    return [round(float(value), 4) for value in (at / beside, low, high)]


def row(
    workdir: Path, photograph: Path, folder: Path, side: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Restores a crop, and measures the cost and the seams."""
    picture = folder / f"{side}.png"
    crop(photograph, side).save(picture)
    found: dict[str, Any] = {"side": side, **settings}
    found |= measured(arguments(workdir, picture, settings))
    out = workdir / "samples" / "restored" / picture.name
    truth = np.asarray(Image.open(picture)).astype(np.float32)
    samples = [np.asarray(Image.open(out / f"{i:06d}.png")) for i in range(SAMPLES)]
    restored = np.stack(samples).astype(np.float32)
    size = photographs.get_config().data.image_size or 64
    overlap = round(settings["restore.overlap"] * size)
    found["rms"] = round(float(np.sqrt(np.mean((restored - truth) ** 2))), 3)
    if side > size:
        found["seams"] = 2 * len(seams(side, size, overlap))
        for name, x in (("truth", truth), ("restored", restored), ("added", restored - truth)):
            found[name] = ratio(gradients(x, size, overlap))
    return found


def main() -> None:
    """Adds a row to `large.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of configs/photographs.py")
    parser.add_argument("--packages", type=Path, default=Path("/"), help="where unpacked")
    parser.add_argument("--folder", type=Path, required=True, help="for the crops")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--method", default="pigdm")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=HERE / "large.json")
    asked = parser.parse_args()
    settings = {
        "restore.method": asked.method,
        "restore.overlap": asked.overlap,
        "sample.steps": asked.steps,
    }
    if asked.packages != Path("/"):
        settings["data.manual_dir"] = str(asked.packages.resolve())
    photograph = asked.packages / PHOTOGRAPH
    found = row(asked.workdir, photograph, asked.folder, asked.side, settings)
    found.pop("data.manual_dir", None)
    rows = json.loads(asked.out.read_text()) if asked.out.exists() else []
    asked.out.write_text(json.dumps([*rows, found], indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
