"""Times pictures of Stable Diffusion beside eager diffusers, in turns and from one folder.

    python experiments/stable_diffusion/theirs.py FOLDER --make      # random weights, 4.3 GB
    PYTHONPATH=. python experiments/stable_diffusion/bench.py FOLDER --theirs-python PYTHON

Prints seconds per picture and their ratio, the largest memory of each process, the seconds until
the first picture, and how far the pictures are apart. See README.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.speed.bench import describe

HERE = Path(__file__).parent
PROMPT = "a photograph of a lighthouse in a storm"


class Worker:
    """A process that draws a picture for each line."""

    def __init__(self, python: str, script: str, arguments: list[str]) -> None:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [python, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()

    def draw(self, out: Path) -> dict[str, float]:
        """Draws into a file; seconds, and the largest memory so far in GiB."""
        assert self.process.stdin
        self.process.stdin.write(f"{out}\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"worker died: {self.process.args!r}")
        return line

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(asked: argparse.Namespace, folder: Path) -> list[str]:
    """The rows of the table; pictures and noise are files in `folder`."""
    noise = folder / "noise.npy"
    shape = (asked.size // 8, asked.size // 8, 4)
    np.save(noise, np.random.default_rng(0).standard_normal(shape, np.float32))
    arguments = [asked.folder, f"--latents={noise}", f"--steps={asked.steps}", f"--prompt={PROMPT}"]
    rows, found, workers = [], {}, {}
    for name, python in (("ours", sys.executable), ("theirs", asked.theirs_python)):
        worker = workers[name] = Worker(python, f"{name}.py", arguments)
        found[name] = [worker.draw(folder / f"{name}.npy")]
        rows.append(describe(f"first picture {name}, s", [time.perf_counter() - worker.started]))
    for _ in range(asked.rounds):
        for name, worker in workers.items():
            found[name].append(worker.draw(folder / f"{name}.npy"))
    for worker in workers.values():
        worker.close()
    seconds = {name: [each["seconds"] for each in rounds[1:]] for name, rounds in found.items()}
    rows += [describe(f"picture {name}, s", each) for name, each in seconds.items()]
    ratios = [a / b for a, b in zip(seconds["theirs"], seconds["ours"], strict=True)]
    rows.append(describe("**picture, theirs / ours**", ratios))
    for name, rounds in found.items():
        rows.append(describe(f"memory {name}, GiB", [rounds[-1]["memory"]]))
    ours, theirs = (np.load(folder / f"{name}.npy") for name in found)
    apart, spread = np.abs(ours - theirs).max(), theirs.std()
    rows.append(
        f"| largest difference, of a standard deviation of {spread:.3f} | {apart:.1e} | | |"
    )
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--theirs-python", required=True, help="with requirements.txt installed")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print("| quantity | median | 95% interval | rounds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(compare(asked, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
