"""The figure that ranks settings: the requested metric, or another that all runs have."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_jax.data import Dataset
from diffusion_jax.from_config import Config, ConfigError
from diffusion_jax.from_config.evaluators import figures_of
from diffusion_jax.report.figures import measured
from diffusion_jax.system.command_line import suggest

HELDOUT, TRAINING = "heldout/loss", "loss"
"""Names in `metrics.jsonl`: the ranking if the metric is missing."""

Figures = Mapping[str, Mapping[str, Any]]  # as in `result.json`


def expected(config: Config, dataset: Dataset) -> dict[str, str]:
    """Name prefixes of a run's figures, and why they will be missing; '' for those expected."""
    noun, every, steps = dataset.kind.noun, config.train.heldout_every, config.train.steps
    why = "" if len(dataset.splits["heldout"]) else f"there are no held-out {noun}"
    if not 0 < every <= steps:
        why = f"train.heldout_every={every} gives none in {steps:,} steps"
    return {**figures_of(config, dataset), HELDOUT: why, TRAINING: ""}


def foretold(metric: str, runs: Sequence[Mapping[str, str]]) -> str:
    """Message before runs with these `expected` figures; '' if all have the metric.

    Raises:
        ConfigError: the metric is unknown.
    """
    name = re.sub("^fd", "frechet", metric)
    if not any(_alike(name, figure) for run in runs for figure in run):
        known = dict.fromkeys(figure for run in runs for figure in run)
        raise ConfigError(f"--sweep: metric={metric!r} is not a figure{suggest(metric, known)}")
    why = _lacking(name, runs)
    if not why:
        return ""
    instead = TRAINING if _lacking(HELDOUT, runs) else HELDOUT
    return f"{metric!r} is left out: {why}. Settings are ranked by {instead!r}"


def _lacking(name: str, runs: Sequence[Mapping[str, str]]) -> str:
    """Why a run lacks the figure with this name or prefix; '' if all have one."""
    each = [[why for figure, why in run.items() if _alike(name, figure)] for run in runs]
    return next((reasons[0] for reasons in each if "" not in reasons), "")


def _alike(name: str, figure: str) -> bool:
    return name.startswith(figure) or figure.startswith(name)


def _names(metric: str) -> tuple[str, ...]:
    """Names of a metric: Frechet distances in features other than the data's own are `fd`."""
    return metric, metric.replace("frechet", "fd")


def metric_named(metric: str, runs: Sequence[Figures]) -> str:
    """The figure of all runs that ranks them: with this name or prefix, or a loss.

    '' if there is none.
    """
    known = metrics_in(runs)
    for name in (*_names(metric), HELDOUT, TRAINING):
        if name in known:
            return name
        if found := next((figure for figure in known if figure.startswith(name)), ""):
            return found
    return ""


def instead_of(metric: str, chosen: str, left_out: Mapping[str, str]) -> str:
    """Message if settings are ranked by another figure than requested; '' if not.

    `left_out` gives the reasons why figures of a run are missing.
    """
    if any(chosen.startswith(name) for name in _names(metric)):
        return ""
    reasons = (
        why for name in _names(metric) for figure, why in left_out.items() if _alike(name, figure)
    )
    why = next(reasons, "not all runs have it")
    return (
        f"**{metric} is left out**: {why}. Settings are ranked by the last logged `{chosen}`, "
        "which cannot be compared between predictions, loss spaces or weightings."
    )


def metrics_in(runs: Sequence[Figures]) -> list[str]:
    """Names that all results have, without reference figures of held-out images."""
    common = [name for name in runs[0] if all(name in run for run in runs)]
    beside = {f"{name}_heldout" for name in common}
    return [name for name in common if name not in beside]


def figures_in(result: Figures, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The figures of a run, and its last logged loss, which has no interval."""
    found: dict[str, Any] = measured(result)
    name = HELDOUT if any(HELDOUT in row for row in rows) else TRAINING
    for value in [row[name] for row in rows if name in row][-1:]:
        nan = float("nan")
        found[name] = {"value": value, "low": nan, "high": nan, "n": None, "passport": {}}
    return found
