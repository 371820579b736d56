"""What options that save memory traffic cost: the held-out loss of the digits recipe.

    export XLA_FLAGS=--xla_force_host_platform_device_count=2
    PYTHONPATH=. python experiments/speed/numerics.py

All arms train on two virtual devices, so that there are gradients to exchange. Finished runs are
not repeated.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import digits
from diffusion_jax.metrics.intervals import mean
from diffusion_jax.run import run
from diffusion_jax.system.files import write_whole
from experiments.restoration.report import table
from experiments.text.trained_report import number

HERE = Path(__file__).parent
RESULTS = "numerics.json"
NONE = "as it is"
ARMS: dict[str, dict[str, Any]] = {
    NONE: {},
    "first moment in bfloat16": {"optimizer.adamw.mu_dtype": "bfloat16"},
    "averages each fourth step": {"ema.every": 4},
    "gradients averaged in bfloat16": {"parallel.gradients": "bfloat16"},
}
"""What differs, by name."""
TIMES = 4  # at which the loss is measured


def trained(arm: str, seed: int, steps: int, folder: Path) -> list[float]:
    """Held-out losses of the average, at `TIMES` equal steps."""
    config = digits.get_config()
    quiet = {"train.sample_every": 0, "train.checkpoint_every": steps, "train.log_every": steps}
    at = {"train.steps": steps, "train.heldout_every": steps // TIMES}
    config.update_from_flattened_dict({**quiet, **at, **ARMS[arm]})
    config.seed = seed
    if status := run(config, folder, "train"):
        raise SystemExit(status)
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["heldout/loss"] for row in rows if "heldout/loss" in row]


def tables(results: dict[str, Any]) -> list[str]:
    """The loss as it is, and the change by each option, paired by seed; both are means of seeds."""
    losses = {arm: np.array([*by_seed.values()]) for arm, by_seed in results["losses"].items()}
    steps, base = results["steps"], losses[NONE]

    def words(values: np.ndarray) -> list[str]:
        return [number(mean(column)) for column in values.T]

    changes = [[arm, *words(found / base - 1)] for arm, found in losses.items() if arm != NONE]
    at = [f"step {steps * (i + 1) // TIMES:,}" for i in range(TIMES)]
    return [
        *table(("held-out loss", *at), [[NONE, *words(base)]]),
        "",
        *table(("relative change", *at), changes),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Adds what is not yet in `numerics.json`, and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/numerics"))
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args(arguments)
    path = asked.out / RESULTS
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results = {"steps": asked.steps, "losses": {arm: {} for arm in ARMS}, **results}
    if results["steps"] != asked.steps:
        raise SystemExit(f"{path} is of --steps={results['steps']}: choose another --out")
    for seed in asked.seeds:
        for arm, found in results["losses"].items():
            if str(seed) not in found:
                folder = asked.workdir / f"{arm.replace(' ', '_')}_{seed}"
                found[str(seed)] = trained(arm, seed, asked.steps, folder)
                write_whole(path, (json.dumps(results, indent=1) + "\n").encode())
    print("\n".join(tables(results)))


if __name__ == "__main__":
    main()
