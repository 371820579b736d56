"""What the runs of a sweep found, by setting and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.metrics.paired import Difference, mean_interval, paired_difference
from diffusion_jax.report import read_result
from diffusion_jax.report.curves import read_rows
from diffusion_jax.report.figures import MEANING, kind
from diffusion_jax.sweep.design import Run
from diffusion_jax.sweep.work import seconds


@dataclass(frozen=True)
class Found:
    """One finished run."""

    run: Run
    result: Mapping[str, Mapping[str, Any]]  # its `result.json`
    rows: Sequence[Mapping[str, float]]  # of its `metrics.jsonl`
    seconds: float  # that it took in all
    folder: Path

    @property
    def train_seconds(self) -> float:
        """Spent in training, in all attempts."""
        return sum(row.get("train_seconds", 0.0) for row in self.rows)


Settings = Mapping[str, Sequence[Found]]  # by the title of their setting, in order of their seeds


def collect(runs: Sequence[Run], folder: Path) -> Settings:
    """What finished runs left in the folder of a sweep."""
    settings: dict[str, list[Found]] = {run.setting: [] for run in runs}
    for run in sorted(runs, key=lambda run: run.config.seed):
        where = folder / run.name
        result = read_result(where / "result.json") or {}
        rows = read_rows(where / "metrics.jsonl") if (where / "metrics.jsonl").is_file() else []
        settings[run.setting].append(Found(run, result, rows, seconds(folder, run), where))
    return settings


def metric_named(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The metric that all results have, of that name or that begins so; '' if there is none."""
    known = metrics_in(results)
    return name if name in known else next((key for key in known if key.startswith(name)), "")


def headline(folder: Path, metric: str) -> str:
    """The figure of a finished run that the sweep is about."""
    result = read_result(folder / "result.json") or {}
    name = metric_named(metric, [result])
    return f"{name} {result[name]['value']:.4g}" if name else f"no metric {metric!r}"


def metrics_in(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that all results have, without those of held-out images that stand beside others."""
    common = [name for name in results[0] if all(name in result for result in results)]
    beside = {f"{name}_heldout" for name in common}
    return [name for name in common if name not in beside]


def sign_of(metric: str) -> int:
    """1 where lower is better, -1 where higher is, 0 where neither is meant."""
    if metric.startswith(("bits", "denoising_error")):
        return 1
    direction = MEANING.get(kind(metric), ("", ""))[1].split()
    return {"lower": 1, "higher": -1}.get(direction[0] if direction else "", 0)


def values(founds: Sequence[Found], metric: str) -> np.ndarray:
    """A metric of the runs of one setting, by seed."""
    return np.array([found.result[metric]["value"] for found in founds])


def mean_of(founds: Sequence[Found], metric: str) -> tuple[float, float, float]:
    """Mean and 95% interval over seeds; with one seed the interval of its run, over samples."""
    if len(founds) == 1:
        entry = founds[0].result[metric]
        return entry["value"], entry["low"], entry["high"]
    return mean_interval(values(founds, metric))


def difference(a: Sequence[Found], b: Sequence[Found], metric: str) -> Difference | None:
    """`a - b` over the seeds that both have; None if there are none."""
    others = {found.run.config.seed: found for found in b}
    mine = [found for found in a if found.run.config.seed in others]
    theirs = [others[found.run.config.seed] for found in mine]
    return paired_difference(values(mine, metric), values(theirs, metric)) if mine else None


def ranked(settings: Mapping[str, Sequence[Found]], metric: str) -> list[str]:
    """Titles, the best first; as they are where neither direction is meant."""
    means = {title: values(founds, metric).mean() for title, founds in settings.items()}
    return sorted(means, key=lambda title: sign_of(metric) * means[title])
