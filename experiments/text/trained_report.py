"""Bits per character of trained networks, with intervals over windows and seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.metrics.intervals import quantile, variance_of_mean
from experiments.restoration.report import table

Result = dict[str, Any]
BASELINES, NATS, ABOUT = "baselines", "nats.npz", "run.json"
FIRST, OTHER = "masked", "autoregressive"
"""The objective whose steps are given, and the one that all are compared with."""
SOURCE = "source"
"""Name of the true law among the baselines."""


def over_both(values: np.ndarray) -> list[float]:
    """Mean of `[seeds, windows]` with its 95% interval over both, each by Student's t.

    The two variances are added: what depends on seed and window together counts in both, so that
    the interval is rather too wide. One seed has no variance: the interval is over windows then.
    """
    half = sum(
        (quantile(len(means)) ** 2 * variance_of_mean(means) if len(means) > 1 else 0.0)
        for means in (values.mean(0), values.mean(1))
    )
    value = float(values.mean())
    return [value, value - float(half**0.5), value + float(half**0.5)]


def loaded(folder: Path) -> tuple[Result, dict[str, np.ndarray]]:
    """What a finished job wrote: about it, and bits per character `[..., windows]` by name."""
    with np.load(folder / NATS) as found:
        nats = dict(found)
    about = json.loads((folder / ABOUT).read_text())
    return about, {name: each / about["length"] / np.log(2) for name, each in nats.items()}


def summary(folder: Path, objectives: Sequence[str]) -> Result:
    """All finished runs of a study."""
    found: Result = {"baselines": {}, "objectives": {}}
    bits: dict[str, np.ndarray] = {}  # [seeds, points, windows]
    source: Any = None
    if (folder / BASELINES / ABOUT).exists():
        about, classical = loaded(folder / BASELINES)
        source = classical.get(SOURCE)
        found["baselines"] = {name: over_both(each[None]) for name, each in classical.items()}
        found["baselines"] |= about["running"]
    for name in objectives:
        seeds = [path.parent for path in sorted(folder.glob(f"{name}_[0-9]*/{ABOUT}"))]
        if seeds:
            about, _ = loaded(seeds[0])
            bits[name] = np.stack([loaded(seed)[1]["bits"] for seed in seeds])
            seconds = np.mean([loaded(seed)[0]["seconds"] for seed in seeds])
            found["objectives"][name] = {**about, "seeds": len(seeds), "seconds": float(seconds)}
    for name, each in bits.items():
        entry = found["objectives"][name]
        entry["bits"] = [over_both(point) for point in each.swapaxes(0, 1)]
        if source is not None:
            entry["regret"] = [over_both(point - source) for point in each.swapaxes(0, 1)]
        if OTHER in bits and name != OTHER:
            n = min(len(each), len(bits[OTHER]))
            off = each[:n] - bits[OTHER][:n]
            entry["behind"] = [over_both(point) for point in off.swapaxes(0, 1)]
            best = [b[:n, np.argmin(b.mean((0, 2)))] for b in (each, bits[OTHER])]
            entry["behind_best"] = over_both(best[0] - best[1])
    return found


def number(values: Sequence[float]) -> str:
    """A value with its interval if it has one."""
    value, *limits = values
    return f"{value:.3f}" + (f" ({limits[0]:.3f} to {limits[1]:.3f})" if limits else "")


def verdict(values: Sequence[float]) -> str:
    """What an interval of a difference from the autoregressive network allows."""
    _, low, high = values
    return "ahead" if high < 0 else "behind" if low > 0 else "undecided"


def report(study: Result) -> list[str]:
    """The table of a study: a row for each objective and baseline, a column for each point."""
    objectives = study["objectives"]
    shown = "regret" if any("regret" in entry for entry in objectives.values()) else "bits"
    points = max((len(entry["bits"]) for entry in objectives.values()), default=0)
    head = ["", "seeds", "steps", *(f"after {i + 1}/{points}" for i in range(points))]
    rows = []
    for name, entry in objectives.items():
        row = [name, f"{entry['seeds']}", f"{entry['steps'][-1]:,}"]
        row += [number(point) for point in entry[shown]]
        if "behind" in entry:
            row += [
                f"{number(each)}: {verdict(each)}"
                for each in (entry["behind"][-1], entry["behind_best"])
            ]
        rows.append(row)
    for name, values in study["baselines"].items():
        if name != SOURCE or shown == "bits":
            rows.append([name, "", "", *[""] * (points - 1), number(values)])
    if any("behind" in entry for entry in objectives.values()):
        head += [f"minus {OTHER}, at the end", "each at its best"]
    return table(head, (row + [""] * (len(head) - len(row)) for row in rows))
