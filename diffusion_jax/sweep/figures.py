"""Pictures of a sweep: its metric, its curves, what it costs, and samples of the same noise."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion_jax.sweep.results import Settings, mean_of, sign_of, values

IMAGES = 10
"""Samples of each setting."""
MOST_SETTINGS = 20
"""Settings that a figure shows."""


def draw_all(settings: Settings, metric: str, folder: Path) -> list[tuple[str, str]]:
    """Draws the pictures; `(file in folder, caption)` of each that could be drawn."""
    some = dict(list(settings.items())[:MOST_SETTINGS])
    drawn: list[tuple[str, str] | None] = []
    if metric:
        drawn += [_metric(some, metric, folder), _pareto(some, metric, folder)]
    drawn += [_curves(some, folder), _samples(some, folder)]
    return [one for one in drawn if one]


def _plots(columns: int, height: float) -> tuple[Any, Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(8, height), layout="constrained")
    return pyplot, figure, axes


def _save(pyplot: Any, figure: Any, path: Path) -> str:
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)
    return path.name


def _metric(settings: Settings, metric: str, folder: Path) -> tuple[str, str]:
    """Points for seeds, lines for intervals, a broken line for real images."""
    pyplot, figure, axes = _plots(1, 1.2 + 0.35 * len(settings))
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
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.set_xlabel(metric)
    name = _save(pyplot, figure, folder / "metric.png")
    return name, f"{metric}: mean over seeds with its 95% interval, and each seed in grey"


def _pareto(settings: Settings, metric: str, folder: Path) -> tuple[str, str]:
    """Points for settings, and a line through those that none beats at the same cost or less."""
    pyplot, figure, axes = _plots(1, 4)
    points = []
    for title, founds in settings.items():
        cost = float(np.mean([found.train_seconds for found in founds]))
        mean, low, high = mean_of(founds, metric)
        axes.errorbar(
            [cost], [mean], [[max(mean - low, 0)], [max(high - mean, 0)]], fmt="o", label=title
        )
        points.append((cost, sign_of(metric) * mean, mean))
    points.sort()
    front = [p for i, p in enumerate(points) if all(p[1] < other[1] for other in points[:i])]
    axes.plot([p[0] for p in front], [p[2] for p in front], ":", color="0.5", zorder=0)
    axes.set(xlabel="seconds of training", ylabel=metric)
    figure.legend(loc="outside right upper", fontsize="small")
    name = _save(pyplot, figure, folder / "cost.png")
    return name, (
        f"{metric} over what a run's training cost, compilation included (several at a time share "
        "the machine); dotted: what no other setting beats for less"
    )


def _curves(settings: Settings, folder: Path) -> tuple[str, str] | None:
    """Means over seeds of the held-out loss, or of that of training where there is none."""
    everywhere = all(
        any("heldout/loss" in row for row in found.rows)
        for founds in settings.values()
        for found in founds
    )
    key = "heldout/loss" if everywhere else "loss"
    pyplot, figure, axes = _plots(1, 4)
    for title, founds in settings.items():
        by_step: dict[int, list[float]] = {}
        for found in founds:
            for row in found.rows:
                if key in row:
                    by_step.setdefault(int(row["step"]), []).append(row[key])
        steps = sorted(step for step, losses in by_step.items() if len(losses) >= len(founds))
        axes.plot(steps, [np.mean(by_step[step]) for step in steps], label=title)
    axes.set(xlabel="step", ylabel=key, yscale="log")
    figure.legend(loc="outside right upper", fontsize="small")
    name = _save(pyplot, figure, folder / "curves.png")
    what = "Loss on held-out images" if everywhere else "Loss in training"
    return name, (
        f"{what}, mean over seeds. Losses of different predictions, loss spaces or weightings "
        "are different quantities"
    )


def _samples(settings: Settings, folder: Path) -> tuple[str, str] | None:
    """A row of samples for each setting, of one seed and the same noise."""
    rows = {}
    for title, founds in settings.items():
        paths = sorted((founds[0].folder / "samples" / "images").glob("*.png"))[:IMAGES]
        if paths:
            rows[title] = [np.asarray(Image.open(path)) for path in paths]
    if not rows:
        return None
    pyplot, figure, axes = _plots(1, 0.3 + 0.6 * len(rows))
    size = max(image.shape[0] for images in rows.values() for image in images)
    sheet = np.full((len(rows) * (size + 1), IMAGES * (size + 1), 3), 255, np.uint8)
    for i, images in enumerate(rows.values()):
        for j, image in enumerate(images):
            color = np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3))
            y, x = i * (size + 1), j * (size + 1)
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = color
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks([i * (size + 1) + size / 2 for i in range(len(rows))], list(rows))
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    seed = next(iter(settings.values()))[0].run.config.seed
    name = _save(pyplot, figure, folder / "samples.png")
    return name, f"Samples of the same noise, side by side; runs of seed {seed}"
