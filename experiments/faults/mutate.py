"""Checks that no faulty command, config, run or folder ends in a stack trace of launch.py.

PYTHONPATH=. python experiments/faults/mutate.py --num 300 --workdir /tmp/faults
"""

import argparse
import collections
import json
import multiprocessing
import os
import random
import resource
import runpy
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image

from configs import default

ROOT = Path(__file__).parents[2]
SECONDS = 90  # time limit of a command; afterwards it is asked to stop, within the same time
MEMORY = 24 * 2**30  # bytes of address space; larger allocations fail
SMALL = {
    "model.name": "dit",
    "model.dit.hidden_size": 16,
    "model.dit.depth": 1,
    "model.dit.num_heads": 2,
    "optimizer.decay": "constant",  # so that it can be trained longer
    "train.steps": 3,
    "train.batch_size": 8,
    "train.log_every": 1,
    "train.sample_every": 0,
    "train.heldout_every": 0,
    "sample.steps": 3,
    "sample.num_images": 4,
    "sample.strip": 2,
    "evaluate.metrics": "distances,denoising",
    "evaluate.extractor": "entries",
    "evaluate.num_samples": 20,
    "evaluate.denoising_images": 8,
}
"""Settings of the commands before mutation: some seconds of training on digits."""
VALUES: dict[type, tuple[str, ...]] = {
    int: ("-1", "0", "1", "2", "3", "5", "7", "64", "1000", "abc", "4294967296"),
    float: ("-1", "-0.1", "0", "1e-30", "0.1", "0.5", "0.9", "1", "1.5", "30", "1e30", "nan"),
    bool: ("True", "False", "maybe", "0", ""),
    str: ("", "nonsense", "a,b", "1", "/dev/null", "é☃", "..", "~nobody/x", "a=b@c", "../no/run@7"),
    tuple: ("()", "(1,)", "0,0", "1.5,2", "-1,1", "a,b", "nan,1", "(0.1, 0.2)", "1,2,3,4", ""),
}
"""Faulty values for config keys, by the type of their default."""
MODES = ("all", "train", "sample", "evaluate", "plan")
NAMES = (
    *("cosine", "flow", "edm", "ddpm", "eps", "v", "heun", "ancestral", "karras", "unet", "mlp"),
    *("low_resolution", "masked", "bytes", "spiral", "digits", "none", "lion", "lbfgs", "sharded"),
    *("optimised", "plus_plus", "laplace", "field", "likelihood", "names", "judge"),
)
"""Names of parts, used in their own and in wrong places."""

Case = tuple[str, list[str]]  # description of the fault, and the arguments of launch.py


def settings(more: dict[str, Any]) -> list[str]:
    """The flags of the small settings, updated with `more`."""
    return [f"--config.{key}={value}" for key, value in {**SMALL, **more}.items()]


def command(workdir: Path, more: dict[str, Any], *flags: str, config: str = "") -> list[str]:
    """The arguments of a fast command."""
    file = config or "configs/digits.py"
    return ["--config", file, f"--workdir={workdir}", *settings(more), *flags]


def mutated_settings(rng: random.Random, folder: Path) -> Case:
    """One to three config keys with faulty values."""
    keys = {
        key: value
        for key, value in flatten_dict(default.get_config().to_dict(), sep=".").items()
        if key not in ("parallel.strategy", "data.num_workers")  # need other machines, and slow
    }
    more = {}
    for key in rng.sample(sorted(keys), rng.choice((1, 1, 2, 3))):
        names = NAMES if isinstance(keys[key], str) and rng.random() < 0.5 else ()
        more[key] = rng.choice(names or VALUES[type(keys[key])])
    said = ", ".join(f"{key}={value}" for key, value in more.items())
    return said, command(folder / "run", more, f"--mode={rng.choice(MODES)}")


def mutated_flags(rng: random.Random, folder: Path) -> Case:
    """Misplaced flags, and files of the wrong kind."""
    (folder / "text.png").write_text("no picture")
    (folder / "empty").touch()
    (folder / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    Image.new("L", (8, 8)).save(folder / "grey.png")
    flags = (
        *(f"--vary={folder}/{name}" for name in ("text.png", "grey.png", "missing.png", "")),
        *(f"--upscale={folder}/{name}" for name in ("grey.png", "empty")),
        *(f"--prompts={folder}/{name}" for name in ("latin.txt", "empty", "missing", "")),
        *("--prompt=", "--prompt=a cat", "--negative=x", "--interpolate=a", "--strip=-1"),
        *("--strip=99999999", "--strength=nan", "--strength=2", "--topology=v5e:0x0", "--mode=x"),
        *("--topology=h100:8", "--topology=x", "--part=3/2", "--sweep=seed=", "--sweep=x"),
        *("--sweep=seed=0,1&train.steps=3", "--workers=-1", "--max_runs=0", "--together=x"),
        *("--num_processes=0", "--process_id=7", "--coordinator=x", "--submit=x", "--unit=9"),
        *(f"--workdir={folder}/empty", f"--workdir={folder}/a\nb", "--workdir=/proc/x"),
        *("--nonsense", "stray", "--config=configs", "--config=README.md", "--config=none.py"),
        *("--config.sample", "--config.sample=1", "--config.x.y=1", "--workdir=nope://x/y"),
    )  # fmt: skip
    chosen = rng.sample(flags, rng.choice((1, 2)))
    mode = [f"--mode={rng.choice(MODES)}"] * (rng.random() < 0.7)
    return " ".join(chosen), command(folder / "run", {}, *mode, *chosen)


def mutated_config(rng: random.Random, folder: Path) -> Case:
    """A config file with a mistake in it."""
    start = "from configs import default\ndef get_config():\n    c = default.get_config()\n"
    body = rng.choice(
        (
            *(
                "    c.train.stepz = 3\n    return c",
                "    c.train.steps = 'x'\n    return c",
                "",
                "(",
            ),
            *(
                "    return None",
                "    return {}",
                "    return c.sample",
                "    raise ValueError('no')",
            ),
            *("    c.sample = None\n    return c", "    c.train.steps = None\n    return c"),
            *("    import nothing_of_this_name\n    return c", "    c.model.dit = 3\n    return c"),
            *("    c.seed = 0.5\n    return c", "    del c.train\n    return c"),
            *("    c.ema.lengths = 0.1\n    return c", "    c.optimizer.groups = 3\n    return c"),
        )
    )
    path = folder / "mine.py"
    path.write_text(start + body)
    return body.strip().partition("\n")[0], command(folder / "run", {}, config=str(path))


def damage(rng: random.Random, paths: Sequence[Path]) -> str:
    """Truncates, empties, corrupts, deletes or replaces one of the files."""
    path = rng.choice(paths)
    how = rng.choice(("cut", "emptied", "spoilt", "removed", "replaced by a folder"))
    data = path.read_bytes()
    path.unlink()
    if how == "replaced by a folder":
        path.mkdir()
    elif how != "removed":
        size = {"cut": len(data) // 2, "emptied": 0, "spoilt": len(data)}[how]
        path.write_bytes(rng.randbytes(size) if how == "spoilt" else data[:size])
    return f"{path.name} {how}"


def damaged_run(rng: random.Random, folder: Path) -> Case:
    """A run with damaged files."""
    shutil.copytree(folder.parent / "run", folder / "run")
    files = sorted(path for path in (folder / "run").rglob("*") if path.is_file())
    several = range(rng.choice((1, 1, 2)))
    said = [damage(rng, [path for path in files if path.is_file()]) for _ in several]
    more = {"train.steps": 5} if rng.random() < 0.4 else {}
    mode = rng.choice(("all", "train", "sample", "evaluate"))
    return f"{', '.join(said)}; {mode} {more}", command(folder / "run", more, f"--mode={mode}")


def changed_folder(rng: random.Random, folder: Path) -> Case:
    """A folder of images that changed after training on it."""
    shutil.copytree(folder.parent / "pictures_run", folder / "run")
    shutil.copytree(folder.parent / "pictures", folder / "pictures")
    pictures = folder / "pictures"
    files = sorted(path for path in pictures.rglob("*") if path.is_file())
    how = rng.choice(("damaged", "class added", "class renamed", "all gone", "emptied", "texts"))
    if how == "damaged":
        how = ", ".join(damage(rng, [f for f in files if f.is_file()]) for _ in range(3))
    elif how == "class added":
        shutil.copytree(pictures / "a", pictures / "0")
    elif how == "class renamed":
        (pictures / "a").rename(pictures / "z")
    elif how == "all gone":
        shutil.rmtree(pictures)
    elif how == "emptied":
        for file in files:
            file.unlink()
    else:
        for file in files[: rng.choice((1, len(files)))]:
            file.with_suffix(".txt").write_text(rng.choice(("a cat", "", "\ufeffa cat\r\n")))
    mode = rng.choice(("all", "train", "sample", "evaluate"))
    more = {"train.steps": rng.choice((3, 5)), "data.allow_changes": rng.random() < 0.5}
    return f"{how}; {mode}", command(
        folder / "run", {**folder_of(pictures), **more}, f"--mode={mode}"
    )


def strange_folder(rng: random.Random, folder: Path) -> Case:
    """A run on a folder with few, odd or no images."""
    pictures = folder / "pictures"
    write_pictures(pictures, rng.choice((1, 2, 3, 7, 20)), rng.choice((1, 2)), rng)
    files = sorted(path for path in pictures.rglob("*") if path.is_file())
    said = [damage(rng, [f for f in files if f.is_file()]) for _ in range(rng.choice((0, 1)))]
    more = folder_of(pictures)
    more["data.heldout_fraction"] = rng.choice((0, 0.1, 0.5, 0.99))
    more["evaluate.extractor"] = rng.choice(("entries", "classifier"))
    more["evaluate.num_samples"] = rng.choice((1, 2, 5, 20))
    more["evaluate.metrics"] = rng.choice(("distances", "denoising", "distances,likelihood"))
    more["evaluate.likelihood.num_images"] = 2
    return f"{len(files)} pictures, {said} {more}", command(folder / "run", more)


KINDS: tuple[tuple[Callable[[random.Random, Path], Case], int], ...] = (
    *((mutated_settings, 9), (mutated_flags, 3), (mutated_config, 1)),
    *((damaged_run, 4), (changed_folder, 2), (strange_folder, 1)),
)
"""Number of cases of each kind in twenty."""


def folder_of(pictures: Path) -> dict[str, Any]:
    """Settings for a folder of images as the data."""
    return {"data.name": "folder", "data.dir": pictures, "data.image_size": 8}


def write_pictures(folder: Path, num: int, classes: int, rng: random.Random) -> None:
    """Writes `num` images in `classes` classes."""
    for i in range(num):
        path = folder / "ab"[i % classes] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.frombuffer(rng.randbytes(192), np.uint8).reshape(8, 8, 3)
        Image.fromarray(pixels).save(path)


def launch(arguments: Sequence[str], cache: Path, log: Path) -> None:
    """`python launch.py` in a process that has already imported everything."""
    os.setpgrp()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nowhere, 0), (file, 1), (file, 2)):
        os.dup2(old, new)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(ROOT)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    sys.argv = ["launch.py", *arguments]
    sys.path.insert(0, str(ROOT))
    runpy.run_path("launch.py", run_name="__main__")


def run(arguments: Sequence[str], cache: Path, log: Path) -> tuple[int | None, float]:
    """Exit status (None if it did not stop when asked) and seconds."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=launch, args=(arguments, cache, log))
    began = time.monotonic()
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return None, time.monotonic() - began
    return process.exitcode, time.monotonic() - began


def outcome(status: int | None, log: str) -> str:
    """The result of a command, in words."""
    last = (log.strip().splitlines() or [""])[-1]
    if "Traceback" in log:
        return "stack trace"
    if status in (0, 130):
        return {0: "done", 130: "stopped after a while"}[status]
    if status is None:
        return "did not stop"
    if status == 1 and "not done:" in log:
        return "a sweep with a run that failed"
    return "refused in one line" if last.startswith("error: ") else "ended without a line"


BAD = ("stack trace", "did not stop", "ended without a line")


def main() -> None:
    """Runs the commands and prints their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, help="the number of one command, which is shown whole")
    parser.add_argument("--workdir", type=Path, required=True)
    asked = parser.parse_args()
    folder, cache = asked.workdir.absolute(), asked.workdir.absolute() / "cache"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "clu.metric_writers", "diffusion_jax.run"])

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pictures").exists():
        write_pictures(folder / "pictures", 24, 2, random.Random(asked.seed))
    for name, more in (("run", {}), ("pictures_run", folder_of(folder / "pictures"))):
        status, _ = run(command(folder / name, more), cache, folder / f"{name}.txt")
        assert status == 0, (folder / f"{name}.txt").read_text()

    def one(number: int) -> dict[str, Any]:
        rng = random.Random(f"{asked.seed} {number}")
        make = rng.choices([kind for kind, _ in KINDS], [share for _, share in KINDS])[0]
        own, log = folder / f"{number:04d}", folder / f"{number:04d}.txt"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        said, arguments = make(rng, own)
        status, seconds = run(arguments, cache, log)
        found = outcome(status, log.read_text(errors="replace"))
        if found in BAD or asked.only is not None:
            print(f"{number} {make.__name__}: {said}: {found} ({status})\n{shlex.join(arguments)}")
            print(log.read_text(errors="replace")[-3000:], flush=True)
        shutil.rmtree(own, ignore_errors=True)
        return {"number": number, "kind": make.__name__, "what": said.replace(str(folder), "F"),
                "outcome": found, "seconds": round(seconds, 1)}  # fmt: skip

    numbers = range(asked.num) if asked.only is None else [asked.only]
    with ThreadPoolExecutor(asked.processes) as pool:
        rows = list(pool.map(one, numbers))
    (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    outcomes = sorted({row["outcome"] for row in rows})
    print("| kind | " + " | ".join(outcomes) + " |\n|" + "---|" * (len(outcomes) + 1))
    for kind, _ in KINDS:
        counts = collections.Counter(r["outcome"] for r in rows if r["kind"] == kind.__name__)
        cells = [kind.__name__.replace("_", " "), *(str(counts[name]) for name in outcomes)]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
