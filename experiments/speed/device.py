"""What one accelerator does in ten minutes: a table of steps, sampling and start-up. See README.md.

    PYTHONPATH=. python experiments/speed/device.py --out table.md

Each job is a process with a time limit. One that fails or takes too long leaves its last words, and
the others go on.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from diffusion_jax.system.files import write_whole

STEPS = "experiments/speed/steps.py"
PLAN = ("launch.py", "--mode", "plan")
LATENTS = ("--config.codec.name=identity", "--config.plan.shape=(32,32,4)")
TOLD = ("|", "a step", "matrix peak", "perfect overlap", "serial", "  ", "memory read", "at this")
"""Beginnings of the lines that are kept."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A command of Python, and the seconds that it may take."""

    name: str
    arguments: Sequence[str]
    seconds: float


JOBS = (
    Job(
        "DiT-XL/2, a training step, beside its prediction",
        (
            *(*PLAN, "--config", "configs/imagenet256_dit.py", *LATENTS),
            *("--config.train.batch_size=64", "--config.model.dit.remat=none"),
        ),
        150,
    ),
    Job("Stable Diffusion v1-5, guided, one picture", (STEPS, "sample", "--rounds", "3"), 150),
    Job(
        "CIFAR-10 (DDPM), a training step, beside its prediction",
        (*PLAN, "--config", "configs/cifar10_ddpm.py", "--config.plan.shape=(32,32,3)"),
        90,
    ),
    Job("DiT-XL/2, start", (STEPS, "start", "dit_xl2", "--rounds", "1"), 200),
)


def told(job: Job) -> list[str]:
    """The lines of a job's output that are kept, and how long it took."""
    began, command = time.monotonic(), [sys.executable, *job.arguments]
    env = {**os.environ, "PYTHONPATH": "."}
    pipe, same = subprocess.PIPE, subprocess.STDOUT
    try:
        found = subprocess.run(
            command, env=env, stdout=pipe, stderr=same, timeout=job.seconds, check=False
        )
        out, status = found.stdout, f"status {found.returncode}" * bool(found.returncode)
    except subprocess.TimeoutExpired as error:
        out, status = error.stdout or b"", f"more than {job.seconds:.0f} s"
    lines = out.decode(errors="replace").splitlines()
    kept = lines[-5:] if status else [line for line in lines if line.startswith(TOLD)]
    took = f"{time.monotonic() - began:.0f} s" + f", failed: {status}" * bool(status)
    return [f"**{job.name}** ({took})", "", *kept, ""]


def main() -> None:
    """Runs the jobs, and writes the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="table to write, in Markdown")
    asked = parser.parse_args()
    lines: list[str] = []
    for job in JOBS:
        lines += told(job)
        write_whole(asked.out, "\n".join(lines).encode())
        print("\n".join(lines[-4:]), flush=True)


if __name__ == "__main__":
    main()
