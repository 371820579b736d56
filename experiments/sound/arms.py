"""Prints the commands that train networks of ours and restore the test recordings with them.

    PYTHONPATH=. python experiments/sound/arms.py --data runs/sound bridge regression

They run `launch.py`, as any user does. See README.md.
"""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from configs import speech_enhanced
from experiments.sound.folders import LOUDNESS, SNRS

Settings = Mapping[str, Any]
SAMPLES = 4  # of each recording, where they differ
STEPS = 2000  # that take 20 minutes of one core, measured


class Arm(NamedTuple):
    """A training, and by name of the method the ways to restore with its network."""

    config: str
    steps: int
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
    "model.gains": True,
    "train.batch_size": 8,
    "train.log_every": 100,
    "train.heldout_every": 0,
    "train.sample_every": 0,
    "train.checkpoint_every": 300,
    "optimizer.warmup_steps": 100,
}
"""Of all trainings."""
NOISE: Settings = {
    "image_condition.noisy.noises": ("coloured", "babble", "recordings", "recordings"),
    "image_condition.noisy.bank": 400,
}
"""Of trainings that hear noise."""
ONE: Settings = {"sample.steps": 1, "restore.num_samples": 2}  # the fewest there are
MANY: Settings = {"restore.num_samples": SAMPLES}
PRIOR: Settings = {
    # Posterior methods compare waveforms, which log-mel spectra do not have.
    "codec.name": "mdct",
    "codec.mdct.rms": speech_enhanced.get_config().codec.mdct.rms,
    "text.name": "none",
    "objective.prediction": "x0",
    "restore.operator": "identity",
    "sample.guidance_scale": 1.0,
}
ARMS: dict[str, Arm] = {
    "bridge": Arm(
        "speech_enhanced",
        STEPS,
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
        STEPS,
        {"time_sampling.uniform.t_min": 1 - 1e-9, "schedule.bridge.c": 1e-8},
        {"regression": ONE},
    ),
    "ouve": Arm(
        "speech_enhanced",
        STEPS,
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
        STEPS,
        PRIOR,
        {
            "zero-shot": {
                "restore.num_samples": 2,
                # Whose systems are solved exactly: white noise has one variance in an MDCT, too.
                "restore.method": "ddrm",
                "sample.steps": 20,
            }
        },
        by_snr=True,
    ),
}
"""By name of the run."""


def training(name: str, data: Path, steps: int = 0) -> dict[str, Any]:
    """What differs from an arm's config; `steps` (0: its own) of training."""
    arm = ARMS[name]
    own = {"data.dir": str(data / "train"), "train.steps": steps or arm.steps}
    if arm.config == "speech_enhanced":
        own |= noise_of(data)
    return {**SHARED, **arm.training, **own}


def noise_of(data: Path) -> dict[str, Any]:
    """The settings of noise, all of it."""
    return {"image_condition.noisy.dir": str(data / "noise"), **NOISE}


def restorations(name: str, data: Path) -> dict[str, list[dict[str, Any]]]:
    """By method what differs from the training's settings, in each of its jobs."""
    test = data / "test"
    found = {}
    for method, way in ARMS[name].ways.items():
        jobs: list[dict[str, Any]] = [{"restore.image": str(test / "noisy")}]
        if ARMS[name].by_snr:
            jobs = [
                {"restore.image": str(test / f"noisy_at/{snr}"), "restore.sigma": sigma(snr)}
                for snr in SNRS
            ]
        found[method] = [{**way, **job} for job in jobs]
    return found


def sigma(snr: float) -> float:
    """Standard deviation of the noise of the test recordings."""
    return round(float(10 ** ((LOUDNESS - snr) / 20)), 5)


def command(name: str, data: Path, mode: str, settings: Settings) -> str:
    """A line of the shell."""
    start = ["python", "launch.py", "--config", f"configs/{ARMS[name].config}.py"]
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    return shlex.join([*start, "--workdir", str(data / name), "--mode", mode, *flags])


def script(name: str, data: Path, steps: int = 0) -> list[str]:
    """Lines of the shell: training, and what each method restores, in `data/restored/METHOD`."""
    shared = training(name, data, steps)
    lines = [command(name, data, "train", shared)]
    for method, jobs in restorations(name, data).items():
        lines += [command(name, data, "restore", {**shared, **job}) for job in jobs]
        here, there = f"{data / name}/samples/restored", f"{data}/restored/{method}"
        lines.append(shlex.join(["mv", here, there]))
    return lines


def main() -> None:
    """Prints them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("arms", nargs="+", choices=[*ARMS])
    parser.add_argument("--data", type=Path, default=Path("runs/sound"))
    parser.add_argument("--steps", type=int, default=0, help="of training; 0: of 20 minutes")
    options = parser.parse_args()
    print(f"mkdir -p {shlex.quote(str(options.data / 'restored'))}")
    for name in options.arms:
        print("\n".join(script(name, options.data, options.steps)))


if __name__ == "__main__":
    main()
