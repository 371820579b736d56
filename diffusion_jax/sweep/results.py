"""Results of a sweep's runs, by setting and seed."""

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
    """Results of one finished run."""

    run: Run
    result: Mapping[str, Mapping[str, Any]]  # its figures, as in `result.json`
    left_out: Mapping[str, str]  # reasons for missing figures
    rows: Sequence[Mapping[str, float]]  # of its `metrics.jsonl`
    seconds: float  # total time
    folder: Path

    @property
    def train_seconds(self) -> float:
        """Seconds of training, over all attempts."""
        return sum(row.get("train_seconds", 0.0) for row in self.rows)


Settings = Mapping[str, Sequence[Found]]  # by the title of the setting, in order of the seeds


def collect(runs: Sequence[Run], folder: Path) -> Settings:
    """Results of finished runs in the folder of a sweep."""
    settings: dict[str, list[Found]] = {run.setting: [] for run in runs}
    for run in sorted(runs, key=lambda run: run.config.seed):
        where = folder / run.name
        found = Found(run, *_left_in(where), seconds(folder, run), where)
        settings[run.setting].append(found)
    return settings


def headline(folder: Path, metric: str) -> str:
    """The sweep's metric of a finished run."""
    result = _left_in(folder)[0]
    name = metric_named(metric, [result])
    return f"{name} {result[name]['value']:.4g}" if name else f"no metric {metric!r}"


def _left_in(folder: Path) -> tuple[dict[str, Any], dict[str, str], list[dict[str, float]]]:
    """Figures in a run's folder, reasons for missing ones, and logged rows."""
    result, log = read_result(folder / "result.json") or {}, folder / "metrics.jsonl"
    rows = read_rows(log) if log.is_file() else []
    left_out = {name: entry["left_out"] for name, entry in result.items() if "left_out" in entry}
    return figures_in(result, rows), left_out, rows


def sign_of(metric: str) -> int:
    """1 if lower is better, -1 if higher is, 0 if neither."""
    if metric.startswith(("bits", "denoising_error")):
        return 1
    direction = MEANING.get(kind(metric), ("", ""))[1].split()
    return {"lower": 1, "higher": -1}.get(direction[0] if direction else "", 0)


def values(founds: Sequence[Found], metric: str) -> np.ndarray:
    """A metric of the runs of one setting, by seed."""
    return np.array([found.result[metric]["value"] for found in founds])


def mean_of(founds: Sequence[Found], metric: str) -> tuple[float, float, float]:
    """Mean and 95% interval over seeds; with one seed, the run's interval over samples."""
    if len(founds) == 1:
        entry = founds[0].result[metric]
        return entry["value"], entry["low"], entry["high"]
    return mean_interval(values(founds, metric))


def difference(a: Sequence[Found], b: Sequence[Found], metric: str) -> Difference | None:
    """`a - b` over the common seeds; None if there are none."""
    others = {found.run.config.seed: found for found in b}
    mine = [found for found in a if found.run.config.seed in others]
    theirs = [others[found.run.config.seed] for found in mine]
    return paired_difference(values(mine, metric), values(theirs, metric)) if mine else None


def ranked(settings: Mapping[str, Sequence[Found]], metric: str) -> list[str]:
    """Titles, best first; unsorted if neither direction is better."""
    means = {title: values(founds, metric).mean() for title, founds in settings.items()}
    return sorted(means, key=lambda title: sign_of(metric) * means[title])
