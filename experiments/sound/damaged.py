"""Clips, narrows and cuts holes into the clean test recordings, to be mended. See damaged.md.

    PYTHONPATH=. python experiments/sound/damaged.py --data runs/sound            # writes folders
    PYTHONPATH=. python experiments/sound/damaged.py --data runs/sound --commands # | bash -ex

The commands mend them with the network of clean speech that `arms.py prior` trains.
"""

import argparse
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.data.sound_files import resampled
from diffusion_jax.data.sound_reading import read_sound
from diffusion_jax.restoration.sound import gap
from experiments.sound.arms import MANY, Settings, command, training
from experiments.sound.folders import RATE, written

NUM, LONGEST = 24, 40_960
"""Recordings, the first that are loud in the gap, and the samples of a file: there are two lengths,
for each of which a program is compiled."""
CLIP = 1638 / 2**15  # of full scale, the root mean square of a recording: a level of 16 bits
FACTOR = 2  # of rates
EDGE = 3500  # Hz, below which a lower rate keeps all
GAP, START = 800, 0.3  # samples, 50 ms; share of the file at which it starts
METHOD: Settings = {
    **MANY,
    "restore.method": "diffpir",  # needs no derivative of the network
    "sample.sampler": "ddim",
    "sample.steps": 30,
}


class Problem(NamedTuple):
    """What is done to recordings, and how `--mode restore` is told."""

    damage: Callable[[np.ndarray], np.ndarray]  # `[T] -> [T]`, or of a lower rate
    settings: Callable[[int], Settings]  # of a file of so many samples
    rate: int = RATE  # of the damaged file, in Hz
    prepared: Callable[[np.ndarray], np.ndarray] = lambda y: y  # for `--mode restore`, at `RATE`


def clipped(x: np.ndarray) -> np.ndarray:
    """At most `CLIP`, as a hard limiter does it."""
    return np.clip(x, -CLIP, CLIP)


def narrowed(x: np.ndarray) -> np.ndarray:
    """At 8 kHz, by a polyphase filter."""
    return resampled(x[:, None].astype(np.float32), RATE, RATE // FACTOR)[:, 0]


def known(size: int) -> np.ndarray:
    """Where a file of so many samples has no gap, bool `[T]`."""
    share = jnp.array([GAP / size])
    return np.asarray(gap(jnp.array([START]), share, size)[0, :, 0] > 0)


PROBLEMS = {
    "clipped": Problem(
        clipped,
        lambda size: {
            "restore.operator": "clipping",
            "restore.clipping.low": -CLIP,
            "restore.clipping.high": CLIP,
            "restore.sigma": 1e-4,
        },
    ),
    "narrow": Problem(
        narrowed,
        # Near 4 kHz the filter has taken something away: what is below is known.
        lambda size: {
            "restore.operator": "band",
            "restore.band.high": EDGE / RATE,
            "restore.sigma": 1e-4,
        },
        RATE // FACTOR,
        lambda y: resampled(y[:, None].astype(np.float32), RATE // FACTOR, RATE)[:, 0],
    ),
    "gaps": Problem(
        lambda x: x * known(len(x)),
        lambda size: {
            "restore.operator": "gap",
            "restore.gap.start": START,
            "restore.gap.length": GAP / size,
        },
    ),
}
"""By name."""


def loud_in_gap(x: np.ndarray, size: int) -> bool:
    """Whether a file `[T]`, a recording of `size` samples and silence, is no pause in the gap."""
    hole = ~known(len(x))
    return bool(np.mean(x[hole] ** 2) > np.mean(x[:size] ** 2) and not hole[size:].any())


def recordings(data: Path, num: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """The first `num` short clean test recordings `[T]`, loud in the gap, and their rows."""
    rows = json.loads((data / "test" / "test.json").read_text(encoding="utf-8"))
    left = num
    for row in rows:
        x = read_sound(data / "test" / "clean" / f"{row['name']}.wav")[0][:, 0]
        if left and len(x) <= LONGEST and loud_in_gap(x, row["size"]):
            left -= 1
            yield {key: row[key] for key in ("name", "prompt", "text", "size")}, x


def damage(data: Path, name: str, num: int) -> int:
    """Writes `NAME/test`: clean and damaged recordings, these also by length in `given_at`."""
    out, problem, about = data / name / "test", PROBLEMS[name], []
    for row, x in recordings(data, num):
        file, given = f"{row['name']}.wav", problem.damage(x)
        for folder, each, rate in (
            ("clean", x, RATE),
            ("given", given, problem.rate),
            (f"given_at/{len(x)}", problem.prepared(given), RATE),
        ):
            (out / folder).mkdir(parents=True, exist_ok=True)
            written(out / folder / file, each, row, rate)
        about.append(row)
    (out / "test.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return len(about)


def jobs(data: Path, name: str) -> list[dict[str, Any]]:
    """What differs from the training's settings in the jobs that mend recordings of each length."""
    folders = sorted((data / name / "test" / "given_at").iterdir())
    return [
        {**METHOD, **PROBLEMS[name].settings(int(each.name)), "restore.image": str(each)}
        for each in folders
    ]


def commands(data: Path) -> list[str]:
    """Lines of the shell that mend all, into `NAME/restored/posterior`."""
    lines, shared = [], training("prior", data)
    for name in PROBLEMS:
        there = data / name / "restored"
        lines += [command("prior", data, "restore", {**shared, **job}) for job in jobs(data, name)]
        lines.append(shlex.join(["mkdir", "-p", str(there)]))
        lines.append(shlex.join(["mv", f"{data}/prior/samples/restored", str(there / "posterior")]))
    return lines


def main() -> None:
    """Writes the folders, or prints the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/sound"))
    parser.add_argument("--num", type=int, default=NUM)
    parser.add_argument("--commands", action="store_true", help="print those that mend them")
    options = parser.parse_args()
    if options.commands:
        print("\n".join(commands(options.data)))
        return
    for name in PROBLEMS:
        print(f"{name}: {damage(options.data, name, options.num)} recordings")


if __name__ == "__main__":
    main()
