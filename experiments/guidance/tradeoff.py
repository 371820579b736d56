"""Effect of the scale and the interval of classifier-free guidance on digits.

Trains the quick start with each seed, samples from the same noise with every guidance setting and
evaluates the samples. Finished runs are not repeated. See README.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from absl import logging

from configs import digits
from diffusion_jax import run
from diffusion_jax.from_config import Config

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
INTERVALS = {
    "always": (0.0, 1.0),
    "noisy half": (0.5, 1.0),
    "middle": (0.3, 0.7),
    "late": (0.0, 0.5),
}
METRICS = ("frechet", "accuracy", "precision", "recall", "coverage")


def figures(config: Config, workdir: Path) -> dict[str, float]:
    """Evaluation of samples with a config's guidance."""
    if status := run.run(config, workdir, "evaluate"):
        raise SystemExit(status)
    found = json.loads((workdir / "result.json").read_text())
    return {m: found[f"{m}_digits_cnn"]["value"] for m in METRICS}


def measure(seed: int, folder: Path) -> list[dict]:
    """A row for each setting, for one training."""
    config = digits.get_config()
    config.seed = seed
    config.evaluate.metrics = "distances"
    config.train.sample_every = 0
    workdir = folder / f"seed{seed}"
    if status := run.run(config, workdir, "train"):
        raise SystemExit(status)
    rows = []
    for name, interval in INTERVALS.items():
        for scale in SCALES if name == "always" else SCALES[1:]:
            config.sample.guidance_scale = scale
            config.sample.guidance.interval = interval
            rows.append({"seed": seed, "interval": name, "scale": scale})
            rows[-1] |= figures(config, workdir)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def draw(rows: list[dict], out: Path) -> None:
    """Plots quality against diversity: a line for each interval, means over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in INTERVALS:
        points = []
        for scale in SCALES:
            of = [r for r in rows if r["scale"] == scale and (r["interval"] == name or scale == 1)]
            points.append([scale, *(np.mean([r[m] for r in of]) for m in METRICS)])
        scale, frechet, _, precision, recall, _ = np.transpose(points)
        axes[0].plot(recall, precision, "o-", label=name)
        axes[1].plot(scale, frechet, "o-", label=name)
    axes[0].set(xlabel="recall", ylabel="precision", title="from scale 1 (right) to 5")
    axes[1].set(xlabel="guidance scale", ylabel="Frechet distance", yscale="log")
    axes[0].legend(title="guided where t is")
    figure.savefig(out, dpi=110)


def main() -> None:
    """Runs everything; writes results and plot next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/guidance"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    rows = [row for seed in args.seeds for row in measure(seed, args.workdir)]
    (args.out / "tradeoff.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, args.out / "tradeoff.png")


if __name__ == "__main__":
    main()
