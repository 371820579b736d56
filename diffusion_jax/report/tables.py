"""Tables of `report.md`: samples beside real images, names, noise levels, EMA lengths."""

from collections.abc import Mapping
from typing import Any

from diffusion_jax.report.figures import (
    BY_LENGTH,
    MEANING,
    MEASURED,
    as_cell,
    as_cells,
    kind,
    suffix,
)
from diffusion_jax.report.passports import differences

ESTIMATES = {
    "ode": "probability-flow ODE, by Hutchinson's estimate, of dequantised images",
    "bound": "variational bound in continuous time",
    "ancestral": "variational bound of the ancestral sampler in the steps of the grid",
}


def result_tables(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: each metric of the samples beside that of real images; likelihoods, if measured.

    Where several EMA lengths were measured, a row for each.
    """
    if any(suffix(entry) for entry in result.values()):
        return "\n".join(_by_length(result))
    samples = {n: e for n, e in result.items() if kind(n) and not n.endswith("_heldout")}
    lines = []
    if samples:
        lines = [
            "| metric | samples (95% interval) | held-out real images | |",
            "|---|---|---|---|",
        ]
    for name, entry in samples.items():
        title, direction = MEANING[kind(name)]
        figures = as_cell(name, entry), as_cells(result, [f"{name}_heldout"])
        lines.append(f"| {title} (`{name}`) | {' | '.join(figures)} | {direction} |")
    if said := differences(samples, MEASURED):
        lines += ["", "Not all figures of the table are of the same:", ""]
        lines += [f"- {sentence}" for sentence in said]
    if any(name.startswith("bits") for name in result):
        lines += [
            "",
            "| bits per dimension (lower is better) | held-out images (95% interval) "
            "| training images | evaluations per image |",
            "|---|---|---|---|",
        ]
    for name, title in ESTIMATES.items():
        if f"bits_{name}_heldout" in result:
            entries = [result[f"bits_{name}_{split}"] for split in ("heldout", "train")]
            cells = " | ".join(as_cell(name, entry) for entry in entries)
            cost = entries[0]["passport"]["evaluations"]
            lines.append(f"| {title} (`bits_{name}`) | {cells} | {cost} |")
    return "\n".join([*lines, *_denoising(result), *_names(result)])


def _denoising(result: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each noise level at which the network was asked to denoise."""
    gaps = [name for name in result if name.startswith("denoising_gap")]
    lines = [
        "",
        "| denoising, squared error per dimension | training images (95% interval) "
        "| held-out images | held-out / training |",
        "|---|---|---|---|",
    ]
    for name in gaps:
        cells = [
            as_cell(column, result[column])
            for column in (name.replace("gap", f"error_{split}") for split in ("train", "heldout"))
        ]
        time = result[name]["passport"]["t"]
        lines.append(f"| t = {time} | {' | '.join(cells)} | {as_cell(name, result[name])} |")
    return lines if gaps else []


def _names(result: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each split of names: how often the judge finds the name by the picture."""
    metrics = {"top1": "name found", "top5": "among the five nearest", "clip_score": "CLIP score"}
    splits = [name.removeprefix("top1_").removesuffix("_real") for name in result]
    found = [s for s, name in zip(splits, result, strict=True) if name == f"top1_{s}_real"]
    if not found:
        return []
    heads = [
        f"{title} (`{name}`), {of}"
        for name, title in metrics.items()
        for of in ("samples", "real pictures")
        if of == "real pictures" or f"{name}_{found[0]}" in result
    ]
    lines = ["", f"| names | by chance | {' | '.join(heads)} |", "|---|---|" + "---|" * len(heads)]
    for split in found:
        passport = result[f"top1_{split}_real"]["passport"]
        keys = [f"{name}_{split}{suffix}" for name in metrics for suffix in ("", "_real")]
        cells = " | ".join(as_cell(key, result[key]) for key in keys if key in result)
        chance = ", ".join(f"{share:.1%}" for share in passport["chance"].values())
        lines.append(f"| {passport['kind']} (`{split}`) | {chance} | {cells} |")
    return lines


def _by_length(result: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each EMA length, a column for each metric, and what the intervals tell."""
    metrics: dict[str, dict[float, Mapping[str, Any]]] = {}
    for name, entry in result.items():
        if suffix(entry):
            entries = metrics.setdefault(name.removesuffix(suffix(entry)), {})
            entries[entry["passport"]["length"]] = entry
    bits = {f"bits_{name}_heldout": title for name, title in ESTIMATES.items()}
    shown = [n for n in metrics if not n.startswith("bits") and kind(n) in BY_LENGTH]
    titles = {name: "; ".join(MEANING[kind(name)]) for name in shown}
    lines, verdicts = _length_table(metrics, titles)
    lines.append(f"| held-out real images | {as_cells(result, [f'{n}_heldout' for n in titles])} |")
    there = {
        n: f"bits per dimension of held-out images, {t}; lower is better"
        for n, t in bits.items()
        if n in metrics
    }
    if there:
        more, about_bits = _length_table(metrics, there)
        lines, verdicts = [*lines, "", *more], verdicts + about_bits
    return [*lines, "", *verdicts]


def _length_table(
    metrics: Mapping[str, Mapping[float, Mapping[str, Any]]], titles: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Lines of the table of some metrics, and for each what its intervals tell."""
    heads = " | ".join(f"{title} (`{name}`)" for name, title in titles.items())
    lines = [f"| EMA length (95% intervals) | {heads} |", "|---|" + "---|" * len(titles)]
    for length in sorted(next(iter(metrics.values()))):
        row = {name: metrics[name][length] for name in titles}
        error = next(iter(row.values()))["passport"]["profile_error"]
        off = f" (post-hoc, profile {error:.1%} off)" if error else ""
        lines.append(f"| {length}{off} | {as_cells(row, titles)} |")
    verdicts = [_best(name, metrics[name], title) for name, title in titles.items()]
    return lines, [f"- {verdict}" for verdict in verdicts if verdict]


def _best(name: str, entries: Mapping[float, Mapping[str, Any]], title: str) -> str:
    """Which length is best, if its interval lies apart from all others; '' if none is meant."""
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
