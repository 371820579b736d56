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
from diffusion_jax.sweep.metric import figures_in, metric_named
from diffusion_jax.sweep.work import seconds


@dataclass(frozen=True)
class Found:
    """One finished run."""

    run: Run
    result: Mapping[str, Mapping[str, Any]]  # its figures, as in `result.json`
    left_out: Mapping[str, str]  # why others are
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
        found = Found(run, *_left_in(where), seconds(folder, run), where)
        settings[run.setting].append(found)
    return settings


def headline(folder: Path, metric: str) -> str:
    """The figure of a finished run that the sweep is about."""
    result = _left_in(folder)[0]
    name = metric_named(metric, [result])
    return f"{name} {result[name]['value']:.4g}" if name else f"no metric {metric!r}"


def _left_in(folder: Path) -> tuple[dict[str, Any], dict[str, str], list[dict[str, float]]]:
    """The figures that a run left in its folder, why others are left out, and what it logged."""
    result, log = read_result(folder / "result.json") or {}, folder / "metrics.jsonl"
    rows = read_rows(log) if log.is_file() else []
    left_out = {name: entry["left_out"] for name, entry in result.items() if "left_out" in entry}
    return figures_in(result, rows), left_out, rows


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
