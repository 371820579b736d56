"""Plots of a sweep: metric, training curves, cost, and samples from the same noise."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion_jax.sweep.results import Settings, mean_of, sign_of, values

IMAGES = 10  # samples per setting
MOST_SETTINGS = 20  # largest number of settings in a plot


def draw_all(settings: Settings, metric: str, folder: Path) -> list[tuple[str, str]]:
    """Draws the plots; returns `(file in folder, caption)` of those that were possible."""
    some = dict(list(settings.items())[:MOST_SETTINGS])
    drawn = {"curves.png": _curves(some), "samples.png": _samples(some)}
    if metric:
        drawn = {"metric.png": _metric(some, metric), "cost.png": _pareto(some, metric), **drawn}
    pictures = []
    for file, (figure, caption) in drawn.items():
        if figure:
            figure.savefig(folder / file, dpi=110, bbox_inches="tight")
            pictures.append((file, caption))
    return pictures


def _axes(height: float) -> tuple[Any, Any]:
    """A figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots()


def _metric(settings: Settings, metric: str) -> tuple[Any, str]:
    """Points for seeds, lines for intervals, a dashed line for real images."""
    figure, axes = _axes(1.2 + 0.35 * len(settings))
    for row, founds in enumerate(settings.values()):
        mean, low, high = mean_of(founds, metric)
        axes.plot(values(founds, metric), [row] * len(founds), ".", color="0.6")
        axes.plot([low, high], [row, row], "-", color="C0")
        axes.plot([mean], [row], "o", color="C0")
    first = next(iter(settings.values()))[0].result
    if f"{metric}_heldout" in first:
        axes.axvline(first[f"{metric}_heldout"]["value"], ls="--", color="C2", label="held-out")
        figure.legend(loc="outside upper right", frameon=False)
    axes.set_yticks(range(len(settings)), list(settings))
    axes.set(ylim=(len(settings) - 0.5, -0.5), xlabel=metric)
    return figure, f"{metric}: mean over seeds with its 95% interval, and each seed in grey"


def _pareto(settings: Settings, metric: str) -> tuple[Any, str]:
    """Points for settings, and a line through the Pareto front."""
    figure, axes = _axes(4)
    points = []
    for title, founds in settings.items():
        cost = float(np.mean([found.train_seconds for found in founds]))
        mean, low, high = mean_of(founds, metric)
        bars = [[max(mean - low, 0)], [max(high - mean, 0)]]
        axes.errorbar([cost], [mean], bars, fmt="o", label=title)
        points.append((cost, sign_of(metric) * mean, mean))
    points.sort()
    front = [p for i, p in enumerate(points) if all(p[1] < other[1] for other in points[:i])]
    axes.plot([p[0] for p in front], [p[2] for p in front], ":", color="0.5", zorder=0)
    axes.set(xlabel="seconds of training", ylabel=metric)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure, (
        f"{metric} against the seconds of a run's training, compilation included (concurrent runs "
        "share the machine); dotted: settings that no other beats in less time"
    )


def _curves(settings: Settings) -> tuple[Any, str]:
    """Held-out loss, or training loss if there is none: means over seeds."""
    everything = [found for founds in settings.values() for found in founds]
    heldout = all(any("heldout/loss" in row for row in found.rows) for found in everything)
    key, what = ("heldout/loss", "on held-out images") if heldout else ("loss", "in training")
    figure, axes = _axes(4)
    for title, founds in settings.items():
        by_step: dict[int, list[float]] = {}
        for row in (row for found in founds for row in found.rows if key in row):
            by_step.setdefault(int(row["step"]), []).append(row[key])
        steps = sorted(step for step, losses in by_step.items() if len(losses) >= len(founds))
        axes.plot(steps, [np.mean(by_step[step]) for step in steps], label=title)
    axes.set(xlabel="step", ylabel=key, yscale="log")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure, (
        f"Loss {what}, mean over seeds. Losses of different predictions, loss spaces or weightings "
        "cannot be compared"
    )


def _samples(settings: Settings) -> tuple[Any, str]:
    """A row of samples for each setting, with the same seed and noise; None if there are none."""
    rows = {}
    for title, founds in settings.items():
        paths = sorted((founds[0].folder / "samples" / "images").glob("*.png"))[:IMAGES]
        if paths:
            rows[title] = [Image.open(path) for path in paths]
    if not rows:
        return None, ""
    pitch = 1 + max(image.height for images in rows.values() for image in images)
    sheet = Image.new("RGB", (IMAGES * pitch, len(rows) * pitch), "white")
    for i, images in enumerate(rows.values()):
        for j, image in enumerate(images):
            sheet.paste(image, (j * pitch, i * pitch))
    figure, axes = _axes(0.3 + 0.6 * len(rows))
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks([(i + 0.5) * pitch - 0.5 for i in range(len(rows))], list(rows))
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    seed = next(iter(settings.values()))[0].run.config.seed
    return figure, f"Samples from the same noise; runs of seed {seed}"
