"""Times pictures of Stable Diffusion beside eager diffusers, in turns and from one folder.

    python experiments/stable_diffusion/theirs.py FOLDER --make      # random weights, 4.3 GB
    PYTHONPATH=. python experiments/stable_diffusion/bench.py FOLDER --theirs-python PYTHON

Prints seconds per picture and their ratio, the largest memory of each process, the seconds until
the first picture, and how far the pictures are apart. See README.md.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.speed.bench import Worker, describe

HERE = Path(__file__).parent
PROMPT = "a photograph of a lighthouse in a storm"


def compare(asked: argparse.Namespace, folder: Path) -> list[str]:
    """The rows of the table; pictures and noise are files in `folder`."""
    noise = folder / "noise.npy"
    shape = (asked.size // 8, asked.size // 8, 4)
    np.save(noise, np.random.default_rng(0).standard_normal(shape, np.float32))
    arguments = [asked.folder, f"--latents={noise}", f"--steps={asked.steps}", f"--prompt={PROMPT}"]
    rows, found, workers = [], {}, {}
    for name, python in (("ours", sys.executable), ("theirs", asked.theirs_python)):
        started = time.perf_counter()
        worker = workers[name] = Worker(python, str(HERE / f"{name}.py"), *arguments)
        found[name] = [worker.ask(f"{folder / name}.npy")]
        rows.append(describe(f"first picture {name}, s", [time.perf_counter() - started]))
    for _ in range(asked.rounds):
        for name, worker in workers.items():
            found[name].append(worker.ask(f"{folder / name}.npy"))
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


def parser_of(about: str) -> argparse.ArgumentParser:
    """The arguments of a comparison with diffusers."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--theirs-python", required=True, help="with requirements.txt installed")
    return parser


def main() -> None:
    """Prints the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print("| quantity | median | 95% interval | rounds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(compare(asked, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
