"""Times our networks and their eager PyTorch counterparts in alternating rounds.

Two processes alternate on the same cores, so that disturbances affect both, and the ratio of the
two times of one round is the observation. See README.md for how to run it.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent


class Worker:
    """A process that answers each input line with a line of JSON."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, job: str) -> Any:
        """The answer to a line; ends this process if the other has died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(job + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"worker died: {self.process.args!r}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def describe(name: str, values: list[float]) -> str:
    """The median with its 95% interval from order statistics (Hahn & Meeker, section 5.2)."""
    ordered, n = sorted(values), len(values)
    margin = 0.98 * n**0.5
    low = ordered[max(0, int(n / 2 - margin))]
    high = ordered[min(n - 1, int(n / 2 + margin))]
    return f"| {name} | {statistics.median(ordered):.3f} | {low:.3f} to {high:.3f} | {n} |"


def compare(
    network: str, batch: int, rounds: int, warmup: int, ours: str, theirs: str
) -> list[str]:
    """Table rows for one network."""
    workers = {
        who: Worker(python, str(HERE / f"{who}.py"), network, "--batch", str(batch))
        for who, python in (("ours", ours), ("theirs", theirs))
    }
    times: dict[str, list[float]] = {}
    for i in range(warmup + rounds):
        for job, who in [
            ("train", "ours"),
            ("train", "theirs"),
            ("forward", "ours"),
            ("forward", "theirs"),
            ("sample", "ours"),
            ("forward", "ours"),
        ]:
            key = f"{job} {who}"
            value = float(workers[who].ask(job))  # seconds
            if i >= warmup:
                times.setdefault(key, []).append(value)
    for worker in workers.values():
        worker.close()

    from_both = [
        (a + b) / 2
        for a, b in zip(times["forward ours"][::2], times["forward ours"][1::2], strict=True)
    ]
    rows = [describe(f"{network} {key}, s", values) for key, values in times.items()]
    pairs = {
        "train, theirs / ours": (times["train theirs"], times["train ours"]),
        "forward, theirs / ours": (times["forward theirs"], times["forward ours"][::2]),
        "sample / (steps x forward), ours": (times["sample ours"], [10 * f for f in from_both]),
    }
    for name, (top, bottom) in pairs.items():
        rows.append(
            describe(f"**{network} {name}**", [a / b for a, b in zip(top, bottom, strict=True)])
        )
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["unet", "dit"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--ours-python", default=sys.executable)
    parser.add_argument("--theirs-python", help="interpreter with requirements.txt installed")
    parser.add_argument("--ours-only", action="store_true", help="images/s and FLOP/s of ours")
    args = parser.parse_args()
    if args.ours_only:
        for network in args.networks:
            command = [
                args.ours_python,
                str(HERE / "ours.py"),
                network,
                "--batch",
                str(args.batch),
                "--alone",
                str(args.rounds),
            ]
            subprocess.run(command, check=True)
        return
    if not args.theirs_python:
        parser.error("--theirs-python is needed, or --ours-only")
    print("| quantity | median | 95% interval | rounds |\n|---|---|---|---|")
    for network in args.networks:
        pythons = args.ours_python, args.theirs_python
        rows = compare(network, args.batch, args.rounds, args.warmup, *pythons)
        print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
