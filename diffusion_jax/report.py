"""`result.json` and `report.md`: what a run found, as a page that a person reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.files import write_whole
from diffusion_jax.passports import differences

MEANING = {
    "frechet": ("Frechet distance to the reference images", "lower is better"),
    "frechet_infinite": ("the same, extrapolated to infinitely many samples", "lower is better"),
    "kernel": ("kernel distance (KID), unbiased", "lower is better; 0 or below: none seen"),
    "sliced_wasserstein": ("sliced Wasserstein distance", "lower is better"),
    "accuracy": ("class asked for = class seen", "higher is better"),
    "inception_score": ("inception score", "higher is better, up to the number of classes"),
    "inception_score_infinite": ("the same, of infinitely many samples", "higher is better"),
    "precision": ("precision: samples that look real", "higher is better"),
    "recall": ("recall: real images that samples cover", "higher is better"),
    "density": ("density: how typical samples are", "1 as real images; higher is narrower"),
    "coverage": ("coverage: real images with a sample nearby", "higher is better"),
    "nearest_training_distance": (
        "median distance to the nearest training image",
        "much below held-out images: memorised",
    ),
    "memorised_share": ("nearer to training than 5% of held-out images", "5%: memorises nothing"),
    "copied_share": (
        "three times nearer to one training image than to the next",
        "much above held-out images: copies",
    ),
}
"""By what the name of a figure begins with: a title, and how to read it."""
MEANING |= {  # in other features than those of the data set's own classifier
    name.replace("frechet", "fd"): MEANING[name] for name in ("frechet", "frechet_infinite")
}
BY_LENGTH = (
    *("frechet", "frechet_infinite", "fd", "fd_infinite", "kernel", "accuracy", "precision"),
    *("recall", "coverage", "nearest_training_distance", "memorised_share"),
)
"""Columns of the table of EMA lengths; `result.json` has all."""
SHARES = ("accuracy", "precision", "recall", "coverage", "memorised_share", "copied_share")
MEASURED = ("n", "n_reference", "n_heldout", "quantile", "extractor", "preprocessing")
"""Fields of passports in which the metrics of one table differ by what they are."""


def kind(name: str) -> str:
    """The key of `MEANING` that a figure's name begins with, '' for likelihoods."""
    return max((key for key in MEANING if f"{name}_".startswith(f"{key}_")), key=len, default="")


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes `result.json`, whole or not at all."""
    write_whole(path, (json.dumps(result, indent=2) + "\n").encode())


def has_passport(path: Path, passport: Mapping[str, Any]) -> bool:
    """Whether `result.json` is there, and is of samples with that passport."""
    if not path.exists():
        return False
    entries = json.loads(path.read_text(encoding="utf-8")).values()
    return all(passport.items() <= entry["passport"].items() for entry in entries)


ESTIMATES = {
    "ode": "probability-flow ODE, by Hutchinson's estimate, of dequantised images",
    "bound": "variational bound in continuous time",
    "ancestral": "variational bound of the ancestral sampler in the steps of the grid",
}


def suffix(entry: Mapping[str, Any]) -> str:
    """What the name of a figure ends in where several EMA lengths are measured."""
    return f"_length{entry['passport']['length']}" if "length" in entry["passport"] else ""


def result_tables(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: each metric of the samples beside that of real images; likelihoods, if measured.

    Where several EMA lengths were measured, a row for each.
    """
    if any(suffix(entry) for entry in result.values()):
        return "\n".join(_by_length(result))
    lines = [
        "| metric | samples (95% interval) | held-out real images | |",
        "|---|---|---|---|",
    ]
    samples = {}
    for name, entry in result.items():
        if name.endswith("_heldout") or name.startswith("bits"):
            continue
        samples[name] = entry
        title, direction = MEANING[kind(name)]
        figures = _figure(name, entry), _cells(result, [f"{name}_heldout"])
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
            cells = " | ".join(_figure(name, entry) for entry in entries)
            cost = entries[0]["passport"]["evaluations"]
            lines.append(f"| {title} (`bits_{name}`) | {cells} | {cost} |")
    return "\n".join(lines)


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
    lines.append(f"| held-out real images | {_cells(result, [f'{n}_heldout' for n in titles])} |")
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
        lines.append(f"| {length}{off} | {_cells(row, titles)} |")
    verdicts = [_best(name, metrics[name], title) for name, title in titles.items()]
    return lines, [f"- {verdict}" for verdict in verdicts if verdict]


def _cells(result: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> str:
    return " | ".join(_figure(name, result[name]) if name in result else "" for name in names)


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


def write_report(
    path: Path,
    title: str,
    result: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, str],
    pictures: Sequence[tuple[str, str]],
    how_again: Sequence[str],
) -> None:
    """Writes `report.md`.

    Args:
        path: of the page.
        title: its heading.
        result: as in `result.json`.
        facts: rows of the table on how this was made.
        pictures: `(file relative to the page, caption)`; those that do not exist are left out.
        how_again: commands that make it again.
    """
    lines = [f"# {title}", ""]
    for file, caption in pictures:
        if (path.parent / file).exists():
            lines += [f"![{caption}]({file})", "", f"*{caption}*", ""]
    lines += ["## Results", "", result_tables(result), ""]
    lines += _how_to_read(result)
    if any(name.startswith("bits") for name in result):
        lines += [
            "Bits per dimension are of 256 grey levels, by the averaged network without guidance "
            "and clipping. The three are of three models: of the deterministic flow (an upper "
            "bound, as its density is averaged over each level's bin), and upper bounds of "
            "stochastic sampling in infinitely many steps and in those of the grid.",
            "",
        ]
    lines += ["## How it was made", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "```", *how_again, "```", ""]
    write_whole(path, "\n".join(lines).encode())


def _how_to_read(result: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on the distances of the table, and on the intervals."""
    frechet = next((n for n in result if n.startswith(("frechet", "fd_"))), None)
    if frechet is None:
        return []
    entry, lines = result[frechet], []
    heldout = result.get(f"{frechet}_heldout")
    limit = result.get(frechet.replace("_", "_infinite_", 1))
    if heldout and not suffix(entry):
        ratio = entry["value"] / heldout["value"]
        lines.append(
            f"The samples' Frechet distance is {ratio:.2f} times that of the held-out images."
        )
    passport = entry["passport"]
    lines.append(
        f"Distances are taken in the features of `{passport['extractor']}` "
        f"({passport['preprocessing']}): they compare runs measured with it, against the same "
        f"reference ({passport['reference']})"
        + ("." if "inception" in passport["extractor"] else ", and are not an FID.")
    )
    if limit:
        bias = entry["value"] - limit["value"]
        lines.append(
            f"Of {entry['n']:,} samples the Frechet distance is about {bias:.2g} above that of "
            "infinitely many, and figures of other numbers of images are compared by the "
            "extrapolated value."
        )
    if heldout and heldout["n"] != entry["n"]:
        lines.append(
            "Recall, coverage and distances without extrapolation depend on the number of images: "
            f"{heldout['n']:,} held-out images are no bound of them for {entry['n']:,} samples."
        )
    lines += [
        "",
        "The intervals are of what this model gives on average at this number of samples, against "
        "these reference images; those of recall and coverage are over draws of both.",
        "",
    ]
    return lines


def _figure(name: str, entry: Mapping[str, Any]) -> str:
    share = kind(name) in SHARES
    value, low, high = (
        f"{entry[key]:.2%}" if share else f"{entry[key]:.3g}" for key in ("value", "low", "high")
    )
    return f"**{value}** ({low} to {high}), n = {entry['n']:,}"


def plot_curves(metrics: Path, out: Path) -> float:
    """Draws the loss over steps and the held-out error by noise level; seconds spent in training.

    Args:
        metrics: a run's `metrics.jsonl`.
        out: PNG to write; none is written if nothing was logged.
    """
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    rows = list({(row["step"], tuple(sorted(row))): row for row in rows}.values())
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    heldout = [row for row in rows if "heldout/loss" in row]
    if losses:
        _draw(losses, heldout, out)
    return sum(row.get("train_seconds", 0.0) for row in rows)


def _draw(
    losses: Sequence[tuple[int, float]], heldout: Sequence[Mapping[str, float]], out: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    left.plot(*zip(*losses, strict=True), label="training")
    left.plot(
        [row["step"] for row in heldout], [row["heldout/loss"] for row in heldout], "o-",
        label="held-out, EMA",
    )  # fmt: skip
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend()
    prefix = "heldout/mse_t"
    for row in heldout[:: -max(1, len(heldout) // 4)][::-1]:  # some, and the last
        levels = [
            (float(k.removeprefix(prefix)), v) for k, v in row.items() if k.startswith(prefix)
        ]
        right.plot(*zip(*sorted(levels), strict=True), "o-", label=f"step {row['step']:.0f}")
    right.set(xlabel="t (0 clean, 1 noise)", ylabel="held-out squared error", yscale="log")
    if heldout:
        right.legend()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
