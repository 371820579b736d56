"""The report on a sweep: `report.md`, the same as one HTML file, and all metrics as JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.metrics.paired import Difference
from diffusion_jax.report.figures import MEANING, code, kind, plain, table
from diffusion_jax.report.html import write_page
from diffusion_jax.report.passports import differences
from diffusion_jax.run.trained import command
from diffusion_jax.sweep.design import Run, Sweep
from diffusion_jax.sweep.figures import draw_all
from diffusion_jax.sweep.metric import instead_of, metric_named, metrics_in
from diffusion_jax.sweep.results import (
    Found,
    Settings,
    collect,
    difference,
    mean_of,
    ranked,
    sign_of,
)
from diffusion_jax.system.files import read_json, write_whole


def write_reports(sweep: Sweep, runs: Sequence[Run], done: Sequence[Run], folder: Path) -> None:
    """Writes `report.md`, `report.html` and `results.json` for the finished runs."""
    settings = collect(done, folder)
    everything = [found for founds in settings.values() for found in founds]
    metrics = metrics_in([found.result for found in everything])
    metric = metric_named(sweep.metric, [found.result for found in everything])
    lines = [f"# {plain(folder.name.replace('_', ' '))}", ""]
    lines += [f"**Question.** {sweep.question}", ""] * bool(sweep.question)
    lines += [f"**Hypothesis.** {sweep.hypothesis}", ""] * bool(sweep.hypothesis)
    lines += ["## Result", ""]
    if missing := [run.name for run in runs if run not in done]:
        names = plain(", ".join(missing))
        lines += [f"**Not done: {len(missing)} of {len(runs)} runs**: {names}.", ""]
    left_out = {name: why for found in everything for name, why in found.left_out.items()}
    if said := metric and instead_of(sweep.metric, metric, left_out):
        lines += [said, ""]
    if metric:
        lines += [*_verdict(settings, metric), "", *_ranking(settings, metric), ""]
    for file, caption in draw_all(settings, metric, folder):
        lines += [f"![{plain(caption)}]({file})", "", f"*{plain(caption)}*", ""]
    rows = [
        [f"`{name}`", *(_interval(*mean_of(founds, name)) for founds in settings.values())]
        for name in metrics
    ]
    lines += ["## All metrics", "", *table(["metric", *map(plain, settings)], rows), ""]
    lines += [*_passports(everything, metrics), "", *_how(sweep, everything)]
    write_whole(folder / "results.json", _as_json(sweep, everything).encode())
    write_page(folder / "report.md", "\n".join(lines))


def _verdict(settings: Settings, metric: str) -> list[str]:
    """Which setting is best, and whether the seeds resolve its difference from the next."""
    if len(settings) < 2 or not sign_of(metric):
        return []
    best, second = ranked(settings, metric)[:2]
    gap = difference(settings[second], settings[best], metric)
    figure = _interval(*mean_of(settings[best], metric))
    line = f"By `{metric}` the best is **{plain(best)}**: {figure}. The next is {plain(second)}"
    if gap is None:
        return [f"{line}, of other seeds."]
    return [f"{line}; the difference, {_interval(*gap[:3])}, paired by seed, is {_told(gap)}."]


def _told(gap: Difference) -> str:
    """Whether the seeds resolve a difference, and how many seeds would."""
    if gap.seeds == 1:
        return "**not resolved: one seed** says nothing about others"
    if gap.resolved:
        return f"resolved by {gap.seeds} seeds"
    more = f": if it is as large as it looks, about {gap.needed:,} would resolve it"
    return f"**not resolved by {gap.seeds} seeds**{more if gap.needed else ''}"


def _ranking(settings: Settings, metric: str) -> list[str]:
    """A row for each setting, the best first, each compared with the first of the sweep."""
    first, founds = next(iter(settings.items()))
    title, direction = MEANING.get(kind(metric), (metric, ""))
    heads = (
        *("setting", "seeds", f"{title} (`{metric}`; {direction})"),
        *(f"minus that of {plain(first)}, by seed", ""),
    )
    rows = []
    for name in ranked(settings, metric):
        gap = None if name == first else difference(settings[name], founds, metric)
        figure = _interval(*mean_of(settings[name], metric))
        cells = [_interval(*gap[:3]), _told(gap)] if gap else ["", ""]
        rows.append([plain(name), str(len(settings[name])), figure, *cells])
    if entry := founds[0].result.get(f"{metric}_heldout"):
        floor = _interval(entry["value"], entry["low"], entry["high"])
        rows.append([f"{entry['n']:,} held-out real images", "", floor, "", "the floor"])
    alone = all(len(founds) == 1 for founds in settings.values())
    of = "samples of the one run" if alone else "seeds, by Student's t"
    return [
        *table(heads, rows, "Settings, the best first"),
        "",
        f"Intervals are of 95%, over {of}.",
    ]


def _passports(everything: Sequence[Found], metrics: Sequence[str]) -> list[str]:
    """Differences between the runs' passports, other than configs and checkpoints."""
    sentences: dict[str, list[str]] = {}
    for metric in metrics:
        entries = {found.run.name: found.result[metric] for found in everything}
        for sentence in differences(entries, but=("config", "checkpoint")):
            sentences.setdefault(sentence, []).append(f"`{metric}`")
    if not sentences:
        return ["All runs were measured alike: their passports differ in the config alone."]
    said = []
    for sentence, names in sentences.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        said.append(f"- {plain(sentence)} (of {', '.join(names[:3])}{more})")
    return ["**Measured differently**, by their passports:", "", *said]


def _how(sweep: Sweep, everything: Sequence[Found]) -> list[str]:
    lines = ["## How it was made", "", "```", command(), "```", ""]
    if sweep.fixed:
        fixed = ", ".join(code(f"{key}={value}") for key, value in sweep.fixed.items())
        lines += [f"In all runs: {fixed}.", ""]
    rows = [
        [
            f"[{found.run.name}]({found.folder.name}/report.md)",
            " ".join(code(f"{key}={value}") for key, value in found.run.overrides.items()),
            f"{found.run.config.train.steps:,}",
            f"{found.train_seconds:,.0f}",
            f"{found.seconds:,.0f}",
        ]
        for found in everything
    ]
    training = sum(found.train_seconds for found in everything)
    whole = sum(found.seconds for found in everything)
    rows.append(["all", "", "", f"{training:,.0f}", f"{whole:,.0f}"])
    lines += [*table(("run", "overrides", "steps", "training, s", "in all, s"), rows), ""]
    made = read_json(everything[0].folder / "config.json", _made_on, "its versions are not known")
    return [*lines, *([made, ""] if made else [])]


def _made_on(saved: Any) -> str:
    """Device, commit and versions of a run, from its `config.json`."""
    versions = ", ".join(f"{name} {v}" for name, v in saved["versions"].items())
    return f"On {saved['device']}; commit {saved['commit']}; {versions}."


def _interval(mean: float, low: float, high: float) -> str:
    if low != low:
        return f"**{mean:.3g}**"
    return f"**{mean:.3g}** ({low:.3g} to {high:.3g})"


def _as_json(sweep: Sweep, everything: Sequence[Found]) -> str:
    """The data of the report's plots and tables; small enough to publish with a paper."""
    runs = [
        {
            "name": found.run.name,
            "overrides": found.run.overrides,
            "train_seconds": round(found.train_seconds, 1),
            "seconds": found.seconds,
            "result": {
                name: [_short(entry[key]) for key in ("value", "low", "high")] + [entry["n"]]
                for name, entry in found.result.items()
            },
        }
        for found in everything
    ]
    first = next(iter(everything[0].result.values()))["passport"]
    about = {
        "question": sweep.question,
        "hypothesis": sweep.hypothesis,
        "fixed": dict(sweep.fixed),
        "columns of result": ["value", "low", "high", "n"],
        "passport of the first figure": first,
    }
    lines = ",\n".join(json.dumps(run) for run in runs)
    return f'{json.dumps(about, indent=1)[:-2]},\n "runs": [\n{lines}\n]}}\n'


def _short(value: float) -> float | None:
    """A number rounded to six digits; None if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
