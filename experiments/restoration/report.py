"""Turns `results.json` into Markdown tables, on stdout, and draws `plane.png`."""

import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
SHOWN = (
    ("ours", "TDS"),
    ("ours", "PiGDM"),
    ("ours", "MMPS"),
    ("theirs", "azula TDS"),
    ("theirs", "azula MMPS"),
    ("theirs", "azula DPS"),
    ("theirs", "deepinv DDRM"),
)
"""Methods of the picture, after the exact samples."""


def number(interval: list[float] | None) -> str:
    """A value with its interval."""
    if interval is None:  # of a method that diverged
        return "infinite"
    value, low, high = interval
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def mean_of(rows: list[Row], measure: str) -> list[float] | None:
    """The mean over cases, whose observations are independent."""
    found = [row[measure] for row in rows]
    if not found or None in found:
        return None
    value = sum(v for v, _, _ in found) / len(found)
    half = math.sqrt(sum((high - low) ** 2 for _, low, high in found)) / 2 / len(found)
    return [value, value - half, value + half]


def best(rows: Iterable[Row]) -> Row | None:
    """The row of the smallest distance."""
    return min((r for r in rows if r["distance"]), key=lambda r: r["distance"][0], default=None)


def ratio(mine: Row, other: Row) -> float:
    """Of distances above the floor; 0 at or below it, and 1 where both are."""
    ours, theirs = (max(row["distance"][0], 0.0) for row in (mine, other))
    return ours / theirs if theirs else float(ours == 0)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table."""
    head = list(head)
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def of_best(rows: list[Row], evaluations: int) -> list[str]:
    """The best of each side in each case, and how often ours has at most half the distance."""
    found, ratios = [], []
    for case in dict.fromkeys(row["case"] for row in rows):
        at = [r for r in rows if r["case"] == case and r.get("evaluations") == evaluations]
        mine, other = (best(r for r in at if r["side"] == side) for side in ("ours", "theirs"))
        exact = next(r for r in rows if r["case"] == case and r["method"] == "exact samples")
        if mine and other:
            ratios.append(ratio(mine, other))
            cells = [f"{number(r['distance'])} {r['method']}" for r in (mine, other)]
            found.append([case, f"{exact['of_exact']:.2f}", *cells, f"{ratios[-1]:.2f}"])
    median, half = float(np.median(ratios)), sum(r <= 0.5 for r in ratios)
    less = sum(r < 1 for r in ratios)
    return [
        *table(("case", "floor", "best of ours", "best of theirs", "ratio"), found),
        "",
        f"At most half of theirs in {half} of {len(ratios)} cases, less in {less}; "
        f"the median ratio is {median:.2f}.",
    ]


def of_methods(rows: list[Row], evaluations: int, default: bool) -> list[str]:
    """Means over the cases of each dimension, of settings by default or chosen on other `y`."""
    which = "default" if default else "chosen"
    at = [r for r in rows if r.get("evaluations") == evaluations and r[which]]
    dims = sorted({row["case"].split("D")[0] for row in at}, key=int)
    found = []
    for side, name in dict.fromkeys((r["side"], r["method"]) for r in at):
        mine = [r for r in at if (r["side"], r["method"]) == (side, name)]
        label = f"{name}, ours" if side == "ours" else name
        cells = [
            number(mean_of([r for r in mine if r["case"].startswith(f"{dim}D")], "distance"))
            for dim in dims
        ]
        rest = [mean_of(mine, measure) for measure in ("weights", "50%", "90%")]
        shown = [f"{100 * r[0]:.0f}%" if r else "" for r in rest]
        found.append([label, *cells, *shown])
    head = [f"distance in {dim}D" for dim in dims]
    exact = [r for r in rows if r["method"] == "exact samples"]
    right = [mean_of(exact, measure) or [0.0] for measure in ("weights", "50%", "90%")]
    found.append(["exact samples", *["0"] * len(dims), *(f"{100 * r[0]:.0f}%" for r in right)])
    return table(("method", *head, "error of weights", "in 50%", "in 90%"), found)


def of_claims(result: dict[str, Any]) -> list[str]:
    """Both claims."""
    small = lambda e: "{:.2g} ({:.2g} to {:.2g})".format(*e)  # noqa: E731
    found: list[str] = []
    if "mmps" in result:
        rows = [
            [f"{one['dim']}D", count, small(errors["ours"]), small(errors["azula"])]
            for one in result["mmps"]
            for count, errors in one["errors"].items()
        ]
        found += table(("prior", "iterations", "ours", "azula"), rows)
    if "tds" in result:
        tds = result["tds"]
        rows = [
            [str(size), small(ours), small(azula), "{:.3f} ({:.3f} to {:.3f})".format(*evidence)]
            for size, ours, azula, evidence in zip(
                tds["size"], tds["ours"], tds["azula"], tds["evidence"], strict=True
            )
        ]
        rows.append(["slope", small(tds["slope, ours"]), small(tds["slope, azula"]), ""])
        head = ("particles", "error of ours", "error of azula", "evidence of ours / exact")
        found += ["", *table(head, rows)]
    return found


def tables(result: dict[str, Any]) -> list[str]:
    """Everything in `results.json`."""
    rows = result["rows"]
    few, many = sorted({r["evaluations"] for r in rows if "evaluations" in r})
    return [
        *of_best(rows, few), "", *of_best(rows, many), "",
        *of_methods(rows, few, default=False), "", *of_methods(rows, few, default=True), "",
        *of_claims(result),
    ]  # fmt: skip


def picture(result: dict[str, Any], path: pathlib.Path, size: int = 400) -> None:
    """Samples of a posterior in the plane: exact ones, and of some methods."""
    from experiments.restoration import exact  # loads torch and the packages of others
    from experiments.restoration.problems import case, draw

    seen = case(2, "mask", 0.3, exact.NUM, seed=0)
    # The observation whose posterior has the most even weights.
    which = int(np.argmin([(law.weights**2).sum() for law in seen.posteriors]))
    seen = seen._replace(**{name: getattr(seen, name)[which : which + 1]
                            for name in ("y", "posteriors", "exact")})  # fmt: skip
    shown = [("exact samples", draw(seen.posteriors[0], size, np.random.default_rng(0)))]
    for side, name in SHOWN:
        run, methods = exact.SIDES[side]
        words = next(
            r["setting"] for r in result["rows"]
            if r["case"] == seen.name and r["method"] == name and r["chosen"]
        )  # fmt: skip
        setting = next(
            s for s in methods[name].settings
            if ", ".join(f"{key}={value}" for key, value in s.items()) == words
        )  # fmt: skip
        label = f"{name}, ours" if side == "ours" else name
        shown.append((label, run(seen, name, exact.FEW, size, setting)))
    figure, axes = pyplot.subplots(2, 4, figsize=(11, 5.8), sharex=True, sharey=True)
    for axis, (label, x) in zip(axes.flat, shown, strict=True):
        axis.scatter(*x.T, s=4, alpha=0.5, color="C1" if "exact" in label else "C0", lw=0)
        axis.axvline(float(seen.y[0, 0]), color="grey", lw=0.7)
        axis.set(title=label, xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def main() -> None:
    """Prints the tables and draws the picture."""
    result = json.loads((HERE / "results.json").read_text())
    print("\n".join(tables(result)))
    picture(result, HERE / "plane.png")


if __name__ == "__main__":
    main()
