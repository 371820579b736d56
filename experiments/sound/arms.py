"""Prints the commands that train networks of ours and restore the test recordings with them.

    PYTHONPATH=. python experiments/sound/arms.py --data runs/sound bridge regression

They run `launch.py`, as any user does. See README.md.
"""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.sound.folders import LOUDNESS, SNRS

Settings = Mapping[str, Any]
SAMPLES = 4  # of each recording, where they differ


class Arm(NamedTuple):
    """A training, and by name of the method the ways to restore with its network."""

    config: str
    steps: int  # that take 25 minutes of one core, measured
    training: Settings
    ways: Mapping[str, Settings]
    by_snr: bool = False  # whether the method is told the level of the noise


SHARED: Settings = {
    "data.name": "recordings",
    "data.cut": "padded",
    "data.loudness": 0.0,  # the recordings have theirs
    "data.length": 32_768,
    # As wide as a frame has coefficients: the noise that is to be predicted fills all of them.
    "model.dit.hidden_size": 256,
    "model.dit.depth": 4,
    "model.dit.num_heads": 8,
    "model.dit.unroll": 4,
    "model.dit.patch_size": 1,
    "train.batch_size": 8,
    "train.log_every": 50,
    "train.heldout_every": 250,
    "train.sample_every": 0,
    "train.checkpoint_every": 100,
    "optimizer.warmup_steps": 100,
}
"""Of all trainings."""
ONE: Settings = {"sample.steps": 1, "restore.num_samples": 1}
MANY: Settings = {"restore.num_samples": SAMPLES}
PRIOR: Settings = {
    "text.name": "none",
    "objective.prediction": "x0",
    "restore.operator": "identity",
    "sample.clip": 0.0,
}
ARMS: dict[str, Arm] = {
    "bridge": Arm(
        "speech_enhanced",
        1000,
        {},
        {
            "bridge": MANY,
            "bridge, SDE": {
                **MANY,
                "sample.sampler": "ancestral",
                "sample.ancestral.variance": "small",
                "sample.steps": 30,
            },
            "bridge, one step": ONE,
        },
    ),
    # The same network and loss at the one time t = 1, where the state is nothing but noise, here of
    # 2e-4: the mean given the noisy recording alone. t_min is 1 in float32.
    "regression": Arm(
        "speech_enhanced",
        1000,
        {"time_sampling.uniform.t_min": 1 - 1e-9, "schedule.bridge.c": 1e-8},
        {"regression": ONE},
    ),
    "ouve": Arm(
        "speech_enhanced",
        1000,
        {
            "schedule.name": "ouve",
            # Data have a variance of 1 here, and a tenth of that in SGMSE.
            "schedule.ouve.sigma_min": 0.1,
            "schedule.ouve.sigma_max": 2.0,
        },
        {"OUVE": {**MANY, "sample.sampler": "predictor_corrector", "sample.steps": 30}},
    ),
    "prior": Arm(
        "speech",
        1000,
        PRIOR,
        {
            "zero-shot": {
                **MANY,
                "restore.method": "mmps",
                "restore.mmps.iterations": 2,
                "sample.sampler": "ddim",
                "sample.steps": 20,
            }
        },
        by_snr=True,
    ),
}
"""By name of the run."""


def flags(settings: Settings) -> list[str]:
    """Settings as flags."""
    return [f"--config.{name}={value}" for name, value in settings.items()]


def command(name: str, data: Path, mode: str, more: list[str], steps: int = 0) -> list[str]:
    """The command line of an arm; `steps` (0: its own) of training."""
    arm = ARMS[name]
    settings = {**SHARED, **arm.training, "data.dir": data / "train"}
    settings["train.steps"] = steps or arm.steps
    start = ["python", "launch.py", "--config", f"configs/{arm.config}.py"]
    return [*start, "--workdir", str(data / name), "--mode", mode, *flags(settings), *more]


def restorations(name: str, data: Path, steps: int = 0) -> dict[str, list[list[str]]]:
    """The command lines that restore the test recordings, by method."""
    found = {}
    for method, way in ARMS[name].ways.items():
        test, more = data / "test", flags(way)
        if ARMS[name].by_snr:
            jobs = [
                (test / f"noisy_at/{snr}", [f"--config.restore.sigma={sigma(snr):.5f}"])
                for snr in SNRS
            ]
        else:
            jobs = [(test / "noisy", [])]
        found[method] = [
            command(name, data, "restore", ["--restore", str(folder), *more, *told], steps)
            for folder, told in jobs
        ]
    return found


def sigma(snr: float) -> float:
    """Standard deviation of the noise of the test recordings."""
    return float(10 ** ((LOUDNESS - snr) / 20))


def script(name: str, data: Path, steps: int = 0) -> list[str]:
    """Lines of the shell: training, and what each method restores, in `data/restored/METHOD`."""
    lines = [shlex.join(command(name, data, "train", [], steps))]
    for method, commands in restorations(name, data, steps).items():
        lines += [shlex.join(each) for each in commands]
        lines.append(
            shlex.join(["mv", f"{data / name}/samples/restored", f"{data}/restored/{method}"])
        )
    return lines


def main() -> None:
    """Prints them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("arms", nargs="+", choices=[*ARMS])
    parser.add_argument("--data", type=Path, default=Path("runs/sound"))
    parser.add_argument("--steps", type=int, default=0, help="of training; 0: of 25 minutes")
    options = parser.parse_args()
    print(f"mkdir -p {shlex.quote(str(options.data / 'restored'))}")
    for name in options.arms:
        print("\n".join(script(name, options.data, options.steps)))


if __name__ == "__main__":
    main()
