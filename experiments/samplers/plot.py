"""Turns `results.json` into Markdown tables, on stdout, and `pareto.png`."""

import json
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
PACKAGES = {"ours": "C0", "ours, optimised grid": "C3", "diffusers": "C1", "k-diffusion": "C2"}
ADAPTIVE = "ours, adaptive"
"""Not in the common tables, as its tolerance sets the number of evaluations."""


def family(row: Row) -> str:
    """Package, and whether the grid was optimised."""
    if row["method"] == "adaptive":
        return ADAPTIVE
    return "ours, optimised grid" if row["grid"] == "optimised" else row["package"]


def best(rows: Iterable[Row], figure: str) -> Row | None:
    """The row with the lowest figure."""
    return min((r for r in rows if figure in r), key=lambda r: r[figure][0], default=None)


def with_interval(interval: Sequence[float]) -> str:
    """A value with its interval."""
    value, low, high = interval
    return f"{value:.3g} ({max(low, 0):.3g} to {high:.3g})"


def cell(row: Row | None, figure: str) -> str:
    """A figure with its interval, and its method."""
    return f"{with_interval(row[figure])} {row['method']}" if row else ""


def table_of_best(rows: list[Row], figure: str) -> list[str]:
    """The best of each family at each number of evaluations."""
    evaluations = sorted({r["evaluations"] for r in rows if family(r) in PACKAGES})
    lines = [
        f"| evaluations | {' | '.join(PACKAGES)} |",
        "|" + "---|" * (len(PACKAGES) + 1),
    ]
    for number in evaluations:
        at = [r for r in rows if r["evaluations"] == number]
        cells = [cell(best((r for r in at if family(r) == f), figure), figure) for f in PACKAGES]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return lines


def table_of_all(rows: list[Row], figure: str) -> list[str]:
    """Each of our methods at each number of evaluations, on its best grid without optimisation."""
    rows = [r for r in rows if family(r) == "ours" and figure in r]
    numbers = sorted({r["evaluations"] for r in rows})
    lines = [
        f"| method | {' | '.join(map(str, numbers))} | ms for an evaluation |",
        "|" + "---|" * (len(numbers) + 2),
    ]
    for method in dict.fromkeys(r["method"] for r in rows):
        found = {r["evaluations"]: r for r in rows if r["method"] == method}
        cells = [f"{found[n][figure][0]:.3g}" if n in found else "" for n in numbers]
        each = statistics.median(1000 * r["seconds"] / n for n, r in found.items())
        lines.append(f"| {method} | {' | '.join(cells)} | {each:.3g} |")
    return lines


def table_of_adaptive(rows: list[Row]) -> list[str]:
    """Cost and error by tolerance."""
    lines = ["| | evaluations | RMS distance | Frechet distance |", "|---|---|---|---|"]
    for row in (r for r in rows if family(r) == ADAPTIVE):
        figures = " | ".join(with_interval(row[figure]) for figure in ("rms", "frechet"))
        lines.append(f"| {row['grid']} | {row['evaluations']} | {figures} |")
    return lines


def draw(rows: list[Row], out: pathlib.Path) -> None:
    """Plots errors against evaluations: all methods, and a line through each family's best."""
    problems = list(dict.fromkeys(r["problem"] for r in rows))
    figure, axes = pyplot.subplots(
        2, len(problems), figsize=(6 * len(problems), 8), layout="constrained", squeeze=False
    )
    names = {"rms": "RMS distance from the exact samples", "frechet": "Frechet distance"}
    for (key, name), line in zip(names.items(), axes, strict=True):
        for problem, axis in zip(problems, line, strict=True):
            mine = [r for r in rows if r["problem"] == problem and key in r]
            for kind, colour in {**PACKAGES, ADAPTIVE: "C4"}.items():
                own = [r for r in mine if family(r) == kind]
                numbers = sorted({r["evaluations"] for r in own})
                tops = [best((r for r in own if r["evaluations"] == n), key) for n in numbers]
                axis.plot(
                    [r["evaluations"] for r in own], [r[key][0] for r in own], ".",
                    color=colour, alpha=0.3,
                )  # fmt: skip
                axis.plot(numbers, [r[key][0] for r in tops if r], "-", color=colour, label=kind)
            for floor in (r for r in mine if r["package"] == "reference"):
                axis.axhline(floor[key][0], color="k", ls=":", label="exact solution")
            axis.set(xscale="log", yscale="log", xlabel="evaluations", ylabel=name, title=problem)
            axis.set_xticks([4, 5, 6, 8, 10, 20, 50], ["4", "5", "6", "8", "10", "20", "50"])
            axis.minorticks_off()
            axis.legend()
    figure.savefig(out, dpi=100)


def main() -> None:
    """Reads, prints, plots."""
    rows = json.loads((HERE / "results.json").read_text())
    for problem in dict.fromkeys(r["problem"] for r in rows):
        mine = [r for r in rows if r["problem"] == problem]
        for figure in ("rms", "frechet"):
            tables = (table_of_best(mine, figure), table_of_all(mine, figure))
            for title, lines in zip(("best", "all of ours"), tables, strict=True):
                print(f"\n### {problem}, {figure}: {title}\n", *lines, sep="\n")
        print(f"\n### {problem}: adaptive\n", *table_of_adaptive(mine), sep="\n")
    draw(rows, HERE / "pareto.png")


if __name__ == "__main__":
    main()
