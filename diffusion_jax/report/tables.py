"""Tables of `report.md`: samples compared with real data, names, noise levels, EMA lengths."""

import re
from collections.abc import Mapping
from typing import Any

from diffusion_jax.report.figures import (
    BY_LENGTH,
    MEANING,
    MEASURED,
    as_cells,
    kind,
    left_out,
    measured,
    suffix,
    table,
)
from diffusion_jax.report.passports import differences

Result = Mapping[str, Mapping[str, Any]]  # as in `result.json`
ESTIMATES = {
    "ode": "probability-flow ODE, by Hutchinson's estimate, of dequantised data",
    "bound": "variational bound in continuous time",
    "ancestral": "variational bound of the ancestral sampler in the steps of the grid",
    "exact": "exact likelihood, from left to right",
    "source": "the source itself, whose law is known",
}
NAMES = {"top1": "name found", "top5": "among the five nearest", "clip_score": "CLIP score"}


def result_tables(result: Result) -> str:
    """Markdown: each metric of the samples next to that of real data; likelihoods, if measured.

    If several EMA lengths were measured, a row for each. Metrics that are left out come last.
    """
    sections = (_samples, _bits, _denoising, _names, _others)
    there, by_length = measured(result), any(suffix(entry) for entry in result.values())
    parts = _by_length(there) if by_length else [section(there) for section in sections]
    if lines := left_out(result):
        parts.append(["Left out:", "", *lines])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _samples(result: Result) -> list[str]:
    """A row for each metric of the samples, and how their passports differ."""
    samples = {n: e for n, e in result.items() if kind(n) and not n.endswith("_heldout")}
    rows = []
    for name in samples:
        title, direction = MEANING[kind(name)]
        cells = as_cells(result, (name, f"{name}_heldout"))
        rows.append([f"{title} (`{name}`)", *cells, direction])
    heads = "metric", "samples (95% interval)", "held-out data", ""
    lines = table(heads, rows, "Samples and held-out data, compared with the training data")
    if said := differences(samples, MEASURED):
        lines += ["", "Not all figures of the table are of the same:", ""]
        lines += [f"- {sentence}" for sentence in said]
    return lines


def _bits(result: Result) -> list[str]:
    """A row for each estimate of the likelihood."""
    rows, unit = [], "dimension"
    for name, title in ESTIMATES.items():
        names = f"bits_{name}_heldout", f"bits_{name}_train"
        if first := next((name for name in names if name in result), None):
            passport = result[first]["passport"]
            cost, unit = passport["evaluations"], passport.get("unit", unit)
            cells = as_cells(result, names)
            rows.append([f"{title} (`bits_{name}`)", *cells, str(cost)])
    heads = (
        *("estimate", "held-out data (95% interval)", "training data", "evaluations per item"),
    )
    return table(heads, rows, f"Likelihood in bits per {unit}; lower is better")


def _denoising(result: Result) -> list[str]:
    """A row for each noise level at which denoising was measured."""
    rows, times = [], [e["passport"]["t"] for n, e in result.items() if n.startswith("denoising_")]
    for t in dict.fromkeys(times):
        columns = [f"denoising_{one}_t{t:.2f}" for one in ("error_train", "error_heldout", "gap")]
        rows.append([f"t = {t}", *as_cells(result, columns)])
    heads = (
        *("noise level", "training data (95% interval)", "held-out data", "held-out / training"),
    )
    return table(heads, rows, "Denoising: squared error per dimension")


def _names(result: Result) -> list[str]:
    """A row for each split of names: how often the judge finds the name from the image."""
    heads, rows = {}, []
    for split in re.findall("^top1_(.+)_real$", "\n".join(result), re.MULTILINE):
        heads = {
            f"{name}_{split}{end}": f"{title} (`{name}`), {of}"
            for name, title in NAMES.items()
            for end, of in (("", "samples"), ("_real", "real pictures"))
            if f"{name}_{split}{end}" in result
        }
        passport = result[f"top1_{split}_real"]["passport"]
        chance = ", ".join(f"{share:.1%}" for share in passport["chance"].values())
        rows.append([f"{passport['kind']} (`{split}`)", chance, *as_cells(result, heads)])
    caption = "How well pictures fit their names, as the judge sees it"
    return table(("names", "by chance", *heads.values()), rows, caption)


def _others(result: Result) -> list[str]:
    """A row for each metric that is in no other table."""
    elsewhere = ("bits_", "denoising_", *(f"{name}_" for name in NAMES))
    names = [name for name in result if not kind(name) and not name.startswith(elsewhere)]
    rows = [[f"`{name}`", *as_cells(result, [name])] for name in names]
    return table(("figure", "value (95% interval)"), rows)


def _by_length(result: Result) -> list[list[str]]:
    """Tables with a row for each EMA length, and which length is best, if resolved."""
    metrics: dict[str, dict[float, Mapping[str, Any]]] = {}
    for name, entry in result.items():
        if suffix(entry):
            entries = metrics.setdefault(name.removesuffix(suffix(entry)), {})
            entries[entry["passport"]["length"]] = entry
    samples = {n: "; ".join(MEANING[kind(n)]) for n in metrics if kind(n) in BY_LENGTH}
    bits = {
        f"bits_{n}_heldout": f"bits per dimension of held-out data, {title}; lower is better"
        for n, title in ESTIMATES.items()
        if f"bits_{n}_heldout" in metrics
    }
    verdicts = [_best(name, metrics[name], title) for name, title in (samples | bits).items()]
    return [
        _length_table(result, metrics, samples),
        _length_table(result, metrics, bits),
        [f"- {verdict}" for verdict in verdicts if verdict],
    ]


def _length_table(
    result: Result,
    metrics: Mapping[str, Mapping[float, Mapping[str, Any]]],
    titles: Mapping[str, str],
) -> list[str]:
    """A row for each EMA length, a column for each metric of `titles`."""
    if not titles:
        return []
    rows = []
    for length in sorted({length for name in titles for length in metrics[name]}):
        row = {name: metrics[name][length] for name in titles if length in metrics[name]}
        error = next(iter(row.values()))["passport"]["profile_error"]
        off = f" (post-hoc, profile {error:.1%} off)" if error else ""
        rows.append([f"{length}{off}", *as_cells(row, titles)])
    heldout = as_cells(result, [f"{name}_heldout" for name in titles])
    if any(heldout):
        rows.append(["held-out data", *heldout])
    heads = (f"{title} (`{name}`)" for name, title in titles.items())
    return table(["EMA length (95% intervals)", *heads], rows)


def _best(name: str, entries: Mapping[float, Mapping[str, Any]], title: str) -> str:
    """A sentence on the best length, if the intervals resolve it; '' if the metric has no best."""
    direction = title.rsplit("; ", 1)[1].split()[0]
    if direction not in ("lower", "higher") or len(entries) < 2:
        return ""
    sign, near, far = (1, "low", "high") if direction == "lower" else (-1, "high", "low")
    best = min(entries, key=lambda length: sign * entries[length]["value"])
    limit = sign * entries[best][far]
    together = sorted(x for x, entry in entries.items() if sign * entry[near] <= limit)
    if together == [best]:
        return f"`{name}` is best at EMA length {best}: its interval lies apart from all others."
    which = ", ".join(map(str, together))
    return f"`{name}`: the intervals do not resolve which of the EMA lengths {which} is best."
