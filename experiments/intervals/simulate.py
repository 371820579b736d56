"""How often the 95% intervals of the metrics contain the true value, on known distributions.

    PYTHONPATH=. python experiments/intervals/simulate.py

Features are drawn from known distributions; the true value is a closed form, or the mean over
`--draws` independent draws, whose own error is far below the width of the intervals.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from diffusion_jax.metrics.estimates import (
    class_estimates,
    moment_estimates,
    prepare,
    set_estimates,
    variety_estimates,
)
from diffusion_jax.metrics.frechet import Moments, frechet_distance, moments
from diffusion_jax.metrics.inception import inception_score
from diffusion_jax.metrics.intervals import Estimate, bootstrap
from diffusion_jax.metrics.neighbours import memorised, nearest_distances

CLASSES = 4
QUANTILE = 0.05


@dataclasses.dataclass(frozen=True)
class Law:
    """A mixture of `CLASSES` normal distributions around fixed centres, like features of classes.

    Attributes:
        dim: dimension of the features.
        shift: shift of all features, along every axis.
        scale: spread within a class; 1 is that of the real images.
    """

    dim: int
    shift: float = 0.0
    scale: float = 1.0

    def centres(self) -> np.ndarray:
        """Centres `[CLASSES, dim]`."""
        return np.random.default_rng(5).normal(size=(CLASSES, self.dim)) + self.shift

    def draw(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        """Features of images with these labels, float32 `[N, dim]`."""
        noise = rng.normal(size=(len(labels), self.dim)) * np.linspace(0.3, 1.2, self.dim)
        return (self.centres()[labels] + self.scale * noise).astype(np.float32)

    def moments(self) -> Moments:
        """Moments of the distribution, with equally likely classes."""
        centres = self.centres()
        within = self.scale**2 * np.diag(np.linspace(0.3, 1.2, self.dim) ** 2)
        return Moments(centres.mean(0), np.cov(centres.T, bias=True) + within)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A model, the real images, and their numbers; `labelled`: with fixed labels."""

    model: Law
    num: int
    num_reference: int
    labelled: bool = True
    num_heldout: int = 300

    def labels(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Labels `[num]`: equally many of each class, or random."""
        return np.arange(num) % CLASSES if self.labelled else rng.integers(CLASSES, size=num)


class Simulation:
    """One reference set, and any number of sets of samples."""

    def __init__(self, setting: Setting, seed: int = 0) -> None:
        self.setting, self.rng = setting, np.random.default_rng(seed)
        self.real = Law(setting.model.dim)
        self.network = self.real.centres().T
        features = self._real(setting.num_reference)
        self.moments, self.reference = moments(features), prepare(features)

    def _real(self, num: int) -> np.ndarray:
        return self.real.draw(self.rng, self.rng.integers(CLASSES, size=num))

    def draw(self) -> dict[str, Estimate]:
        """All metrics of new samples; recall and coverage with new reference images too."""
        s, rng = self.setting, self.rng
        labels = s.labels(rng, s.num)
        x, given = s.model.draw(rng, labels), labels if s.labelled else None
        found = moment_estimates(x, given, self.moments)
        found |= class_estimates(x @ self.network, given)
        found |= set_estimates(x, given, self.reference)
        found |= variety_estimates(x, given, prepare(self._real(s.num_reference)))
        near = nearest_distances(x, self.reference.features)
        heldout = nearest_distances(self._real(s.num_heldout), self.reference.features)
        found["memorised"] = memorised(near, heldout, QUANTILE)
        found["nearest"] = bootstrap(lambda d: float(np.median(d)), near, 200)
        return {name: estimate for name, estimate in found.items() if estimate is not None}

    def truths(self, values: dict[str, np.ndarray], many: int) -> dict[str, float]:
        """True values, given `values` of many draws, or from `many` samples."""
        s = self.setting
        x = s.model.draw(self.rng, s.labels(self.rng, many))
        near = nearest_distances(x[: many // 10], self.reference.features)
        heldout = nearest_distances(self._real(many // 10), self.reference.features)
        root = float(np.sqrt((values["sliced_wasserstein"] ** 2).mean()))
        return {name: float(v.mean()) for name, v in values.items()} | {
            "sliced_wasserstein": root,
            "frechet_infinite": frechet_distance(s.model.moments(), self.moments),
            "inception_score_infinite": inception_score(log_softmax(x @ self.network, axis=1)),
            "memorised": float((near < np.quantile(heldout, QUANTILE)).mean()),
        }


SETTINGS = {
    "the law of the data": Setting(Law(8), 400, 400),
    "another law": Setting(Law(8, 0.15, 0.9), 400, 400),
    "without labels": Setting(Law(8, 0.1, 1.1), 400, 400, labelled=False),
    "fewer samples": Setting(Law(16, 0.05), 200, 1000),
}


def coverages(
    setting: Setting, repeats: int, draws: int, many: int = 200_000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """`{"metric": (true value, share of the intervals that contain it)}`.

    The true values are from all `draws`; intervals are computed for `repeats` of these.
    """
    simulation = Simulation(setting, seed)
    found = [simulation.draw() for _ in range(max(draws, repeats))]
    values = {name: np.array([f[name].value for f in found]) for name in found[0]}
    truths = simulation.truths(values, many)
    return {
        name: (
            truth,
            float(np.mean([f[name].low <= truth <= f[name].high for f in found[:repeats]])),
        )
        for name, truth in truths.items()
    }


def main() -> None:
    """Prints the table and writes `results_<seed>.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table, began = {}, time.monotonic()
    for name, setting in SETTINGS.items():
        table[name] = coverages(setting, options.repeats, options.draws, seed=options.seed)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print("| metric | " + " | ".join(SETTINGS) + " |\n" + "|---" * (len(SETTINGS) + 1) + "|")
    for metric in next(iter(table.values())):
        found = [table[s].get(metric) for s in SETTINGS]
        cells = [f"{100 * f[1]:.1f}% ({f[0]:.3g})" if f else "" for f in found]
        print(f"| {metric} | {' | '.join(cells)} |")
    path = Path(__file__).with_name(f"results_{options.seed}.json")
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
