"""Turns results into Markdown tables, on stdout. See README.md and damaged.md."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.metrics.intervals import Estimate, mean
from diffusion_jax.metrics.texts import ratio
from experiments.restoration.report import table
from experiments.sound.measure import EDITS, NAMES

Result = dict[str, Any]
FIRST = "bridge", "posterior"
"""Methods that all others are compared with; the first that is there, if no other is asked for."""
BOOTSTRAP = 1000
HEADS = {
    "si_sdr_uncentred": ("SI-SDR, dB", "{:.1f}"),
    "estoi": ("ESTOI", "{:.2f}"),
    "lsd": ("LSD, dB", "{:.1f}"),
    EDITS: ("word errors", "{:.0%}"),
}
"""Of a measure: its name in tables, and how its figures are written."""


def estimate(name: str, values: np.ndarray, words: np.ndarray) -> Estimate:
    """Mean of a figure of each recording `[N]`; of edits their sum over that of the words."""
    return ratio(values, words, BOOTSTRAP) if name == EDITS else mean(values)


def written(name: str, found: Estimate, signed: bool = False) -> str:
    """A figure with its interval."""
    form = HEADS[name][1]
    value = (form.replace(":", ":+") if signed else form).format(found.value)
    return f"{value} ({form.format(found.low)} to {form.format(found.high)})"


def _rows(result: Result, cell: Callable[[str, str], str]) -> list[list[str]]:
    return [[method, *(cell(method, name) for name in HEADS)] for method in result["methods"]]


def values_of(result: Result, method: str, name: str) -> np.ndarray:
    """A figure of each recording, `[N]`."""
    return np.array(result["methods"][method][name], float)


def overall(result: Result) -> list[str]:
    """Each measure of each method, over all recordings."""
    words = np.array([row["words"] for row in result["recordings"]])

    def cell(method: str, name: str) -> str:
        return written(name, estimate(name, values_of(result, method, name), words))

    return table(["method", *(head for head, _ in HEADS.values())], _rows(result, cell))


def compared(result: Result, first: str) -> list[str]:
    """Each method less the first one, paired by recording; bold where 0 is not in the interval."""
    words = np.array([row["words"] for row in result["recordings"]])

    def cell(method: str, name: str) -> str:
        if method == first:
            return ""
        off = values_of(result, method, name) - values_of(result, first, name)
        found = estimate(name, off, words)
        text = written(name, found, signed=True)
        return f"**{text}**" if found.low > 0 or found.high < 0 else text

    return table([f"minus {first}", *(head for head, _ in HEADS.values())], _rows(result, cell))


def by_snr(result: Result, name: str) -> list[str]:
    """A measure of each method by the signal-to-noise ratio of what is given."""
    at = np.array([row["snr"] for row in result["recordings"]])
    words = np.array([row["words"] for row in result["recordings"]])
    levels: Sequence[int] = sorted(set(at.tolist()))
    rows = []
    for method in result["methods"]:
        values = values_of(result, method, name)
        cells = [
            written(name, estimate(name, values[at == snr], words[at == snr])) for snr in levels
        ]
        rows.append([method, *cells])
    return table([HEADS[name][0], *(f"{snr} dB" for snr in levels)], rows)


def calibrated(result: Result) -> list[str]:
    """The line of `mean_line` and the spread, of methods with several samples, if there are any."""
    rows = []
    for method, found in result["methods"].items():
        if own := found.get("calibration"):
            line = own["left"]
            rows.append(
                [
                    *(method, f"{own['samples']}"),
                    *(f"{10 * np.log10(own[key][0]):.1f}" for key in ("mse_1", "mse_K")),
                    *(f"{e[0]:.2f} ({e[1]:.2f} to {e[2]:.2f})" for e in (line, own["spread"])),
                    f"{own['inside'][0]:.0%} ({own['inside'][1]:.0%} to {own['inside'][2]:.0%})",
                ]
            )
    if not rows:
        return []
    levels = {
        found["calibration"]["level"]
        for found in result["methods"].values()
        if "calibration" in found
    }
    exact = ", ".join(f"{level:.0%}" for level in sorted(levels))
    head = ["method", "samples", "error of one, dB", "of their mean, dB", "off the line, dB"]
    return table([*head, "spread over error", f"levels of bands inside ({exact})"], rows)


def report(result: Result, against: str = "") -> list[str]:
    """All tables, with a comparison with one method."""
    found = [*overall(result), ""]
    for first in [name for name in (against, *FIRST) if name in result["methods"]][:1]:
        found += [*compared(result, first), ""]
    if "snr" in result["recordings"][0]:  # not of damaged.md
        for name in (*NAMES, EDITS):
            found += [*by_snr(result, name), ""]
    return [*found, *calibrated(result)]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument("--against", default="", help="the method that others are compared with")
    options = parser.parse_args()
    result = json.loads(options.results.read_text(encoding="utf-8"))
    print("\n".join(report(result, options.against)))


if __name__ == "__main__":
    main()
