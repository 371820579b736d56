"""Tables of `photographs.json` on stdout, `photographs_spread.png`, and a sheet of pictures."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from PIL import Image

from diffusion_jax.data import to_uint8
from diffusion_jax.metrics import intervals
from diffusion_jax.system.pictures import captioned
from experiments.restoration.photographs import CONDITIONAL, DEFAULT, FOUND, HERE, METRICS, SETTINGS
from experiments.restoration.report import table

Result = dict[str, Any]
LEAST_MOST = dict(zip(METRICS, (max, max, min), strict=True))
"""Which is the better one."""
DIGITS = dict(zip(METRICS, (2, 3, 3), strict=True))
WHITE = 0.3
"""Spread that is white on the sheet, of a range of 2."""


def number(values: np.ndarray, digits: int) -> str:
    """The mean over photographs with its 95% interval."""
    value, low, high = intervals.mean(values)
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def rows_of(methods: Result, few: bool) -> list[tuple[str, np.ndarray]]:
    """Means and single samples `[photographs, metrics]`, by label.

    Of methods on all windows, or, with `few`, on as many as those that had less.
    """
    found = []
    for name, cell in methods.items():
        suffix = ", ours" if name in SETTINGS else ""
        for what in ("mean", "sample"):
            key = f"{what}, few" if few and f"{what}, few" in cell else what
            if key in cell and (few or cell["windows"] == most(methods)):
                several = f", mean of {cell['samples']:g}" if what == "mean" else ", one sample"
                label = name + suffix + (several if cell["samples"] > 1 else "")
                found.append((label, np.array(cell[key])))
    return found


def most(methods: Result) -> int:
    """Windows of the methods that had most."""
    return max(cell["windows"] for cell in methods.values())


def of_task(task: str, methods: Result, few: bool) -> list[str]:
    """A row for each method; the best of each column is bold."""
    rows = rows_of(methods, few)
    columns = range(len(rows[0][1][0]))
    best = [
        list(LEAST_MOST.values())[i]((v[:, i].mean(), label) for label, v in rows)[1]
        for i in columns
    ]
    lines = []
    for label, values in rows:
        cells = [number(values[:, i], DIGITS[METRICS[i]]) for i in columns]
        lines.append([label, *(f"**{c}**" if best[i] == label else c for i, c in enumerate(cells))])
    return [f"**{task}**", "", *table((task, *METRICS[: len(columns)]), lines), ""]


def is_classical(name: str) -> bool:
    """Whether a method needs no network."""
    return name not in SETTINGS and "azula" not in name and FOUND not in name


def against(tasks: Result, others: Callable[[str], bool], whose: str) -> list[str]:
    """The default's differences from the best of others, by photograph."""
    lines = []
    for task, methods in tasks.items():
        cells = {name: cell for name, cell in methods.items() if others(name)}
        if DEFAULT not in methods or not cells:
            continue
        line = []
        for i, metric in enumerate(METRICS[: len(methods[DEFAULT]["mean"][0])]):
            # Errors are those of means, likeness is that of a sample.
            what = "sample" if metric == METRICS[2] else "mean"
            each = {n: np.array(c.get(what, c["mean"]))[:, i] for n, c in cells.items()}
            means = {n: values.mean() for n, values in each.items()}
            name = LEAST_MOST[metric](means, key=means.__getitem__)
            off = np.array(methods[DEFAULT][what])[:, i] - each[name]
            _, low, high = intervals.mean(off)
            if low <= 0 <= high:
                says = "undecided"
            else:
                says = "ours" if (high < 0) == (metric == METRICS[2]) else whose
            line.append(f"{number(off, DIGITS[metric])} to {name}: {says}")
        lines.append([task, *line])
    head = ("task", "PSNR, mean", "SSIM, mean", "ST-LPIPS, one sample")
    return table(head[: len(lines[0])], lines) if lines else []


def of_spread(tasks: Result) -> list[str]:
    """The ratio of true error and spread of each method and task."""
    names = list(
        dict.fromkeys(n for m in tasks.values() for n, c in m.items() if "reliability" in c)
    )
    lines = [
        [task, *("{:.2f} ({:.2f} to {:.2f})".format(*methods[n]["reliability"]["ratio"])
                 if n in methods else "" for n in names)]
        for task, methods in tasks.items()
    ]  # fmt: skip
    labels = [f"{name}, ours" if name in SETTINGS else name for name in names]
    return table(("error / spread", *labels), lines)


def draw_spread(tasks: Result, path: Path) -> None:
    """Root-mean-square error of pixels of one spread, a panel for each task."""
    sampled = list(
        dict.fromkeys([*SETTINGS, *(name for methods in tasks.values() for name in methods)])
    )
    figure, axes = pyplot.subplots(3, 3, figsize=(9, 8.4), squeeze=False)
    for axis, (task, methods) in zip(axes.flat, tasks.items(), strict=False):
        shown = {
            name: cell["reliability"] for name, cell in methods.items() if "reliability" in cell
        }
        for name, cell in shown.items():
            bins = np.maximum(np.array(cell["bins"]), 1e-4)
            style = {"marker": "o", "ms": 3, "lw": 1 + (name == DEFAULT)}
            axis.plot(*bins.T, color=f"C{sampled.index(name)}", label=name, **style)
        ends = [1e-3, 1]
        axis.plot(ends, ends, color="black", lw=0.5)
        axis.set(title=task, xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in axes.flat[len(tasks) :]:
        axis.axis("off")
    lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    named = {name: line for name, line in lines.items() if name in sampled}
    axes.flat[-1].legend(named.values(), named.keys(), loc="center")
    figure.supxlabel("spread of the samples")
    figure.supylabel("true error of their mean")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def sheet(tasks: Result, kept: Path, path: Path, window: int) -> None:
    """A row for each task, from what `--keep` stored, and one more where no mask was told."""
    pictures: list[np.ndarray] = []
    captions = []

    def stored(task: str, name: str) -> np.ndarray:
        return np.load(kept / f"{task} {name}.npy")[window].astype(np.float32)

    for task, methods in tasks.items():
        given, truth = stored(task, "given"), stored(task, "truth")
        samples = stored(task, DEFAULT)
        means = {n: np.array(c["mean"])[:, 0].mean() for n, c in methods.items()}
        best = max(filter(is_classical, methods), key=means.__getitem__)
        spread = samples.std(0, ddof=1).mean(-1, keepdims=True).repeat(3, -1) / WHITE * 2 - 1
        pictures += [given, samples[0], samples.mean(0), spread, stored(task, best)[0], truth]
        captions.append(f"{task}: given, sample, mean, spread, {best}, truth")
        unseen = [n for n in methods if n == CONDITIONAL or FOUND in n]
        if len(unseen) == 3:
            pictures += [given, *(stored(task, n)[0] for n in unseen), samples[0], truth]
            captions.append(f"{task}: given, {'; '.join(unseen)}; sample with the mask, truth")
    made = to_uint8(np.stack(pictures)).repeat(2, 1).repeat(2, 2)
    Image.fromarray(captioned(made, captions, 6)).save(path, optimize=True)


def tables(results: Result) -> list[str]:
    """Everything in `photographs.json`."""
    tasks = results["tasks"]
    found: list[str] = []
    for task, methods in tasks.items():
        found += of_task(task, methods, few=False)
    for task, methods in tasks.items():
        if any(cell["windows"] < most(methods) for cell in methods.values()):
            found += of_task(f"{task}, fewer windows", methods, few=True)
    classical = against(tasks, is_classical, "classical")
    azula = against(tasks, lambda name: "azula" in name, "azula")
    return [*found, *classical, "", *azula, "", *of_spread(tasks)]


def main() -> None:
    """Prints the tables and draws both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder of the samples, for the sheet")
    parser.add_argument("--window", type=int, default=1, help="of the sheet")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    results = json.loads((args.out / "photographs.json").read_text())
    print("\n".join(tables(results)))
    draw_spread(results["tasks"], args.out / "photographs_spread.png")
    if args.keep:
        sheet(results["tasks"], args.keep, args.out / "photographs.png", args.window)


if __name__ == "__main__":
    main()
