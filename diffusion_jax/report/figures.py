"""Titles and explanations of the metrics of a result, and their formatting in tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MEANING = {
    "frechet": ("Frechet distance to the reference images", "lower is better"),
    "frechet_infinite": ("the same, extrapolated to infinitely many samples", "lower is better"),
    "kernel": ("kernel distance (KID), unbiased", "lower is better; 0 or below: none seen"),
    "sliced_wasserstein": ("sliced Wasserstein distance", "lower is better"),
    "accuracy": ("class asked for = class seen", "higher is better"),
    "inception_score": ("inception score", "higher is better, up to the number of classes"),
    "inception_score_infinite": ("the same, of infinitely many samples", "higher is better"),
    "precision": ("precision: samples that look real", "higher is better"),
    "recall": ("recall: real data that samples cover", "higher is better"),
    "density": ("density: how typical samples are", "1 as real data; higher is narrower"),
    "coverage": ("coverage: real data with a sample nearby", "higher is better"),
    "nearest_training_distance": (
        "median distance to the nearest training item",
        "much below held-out data: memorised",
    ),
    "memorised_share": ("nearer to training than 5% of held-out data", "5%: memorises nothing"),
    "copied_share": (
        "three times nearer to one training item than to the next",
        "much above held-out data: copies",
    ),
    "heldout/loss": ("loss on held-out data", "lower is better"),
    "loss": ("loss in training", "lower is better"),
}
"""By the beginning of a metric's name: a title, and how to read it."""
MEANING |= {  # in features other than those of the data set's own classifier
    name.replace("frechet", "fd"): MEANING[name] for name in ("frechet", "frechet_infinite")
}
BY_LENGTH = (
    *("frechet", "frechet_infinite", "fd", "fd_infinite", "kernel", "accuracy", "precision"),
    *("recall", "coverage", "nearest_training_distance", "memorised_share"),
)
"""Metrics in the table of EMA lengths; `result.json` has all."""
SHARES = (
    *("accuracy", "precision", "recall", "coverage", "memorised_share", "copied_share"),
    *("top1", "top5"),
)
MEASURED = ("n", "n_reference", "n_heldout", "quantile", "extractor", "preprocessing", "compared")
"""Fields of passports that differ between metrics of one table by their nature."""


def kind(name: str) -> str:
    """The key of `MEANING` that a metric's name begins with, '' for metrics of other tables."""
    return max((key for key in MEANING if f"{name}_".startswith(f"{key}_")), key=len, default="")


def suffix(entry: Mapping[str, Any]) -> str:
    """The suffix of a metric's name if several EMA lengths are measured."""
    return f"_length{entry['passport']['length']}" if "length" in entry["passport"] else ""


def measured(result: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The metrics of a result that are not left out."""
    return {name: entry for name, entry in result.items() if "left_out" not in entry}


def left_out(result: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each reason why metrics of a result are left out, with their names."""
    names: dict[str, dict[str, None]] = {}
    for name, entry in result.items():
        if "left_out" in entry:
            short = re.sub(r"_t\d\.\d+", "", name)  # one name for all noise levels
            names.setdefault(entry["left_out"], {})[f"`{short}`"] = None
    return [f"- {', '.join(those)}: {why}." for why, those in names.items()]


def as_cells(result: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Values with intervals and numbers of items, for cells of a table; '' for missing ones."""

    def cell(name: str) -> str:
        entry = result[name]
        spec = ".2%" if (kind(name) or name.split("_")[0]) in SHARES else ".3g"
        value, low, high = (f"{entry[key]:{spec}}" for key in ("value", "low", "high"))
        return f"**{value}** ({low} to {high}), n = {entry['n']:,}"

    return [cell(name) if name in result else "" for name in names]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> list[str]:
    """Lines of a Markdown table, below its caption; none if it has no rows."""
    if not rows:
        return []
    first, *others = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    above = [f"*{caption}*", ""] if caption else []
    return [*above, first, "|" + "---|" * len(heads), *others]


def plain(text: str) -> str:
    """Escapes plain text, such as names, for Markdown, on one line."""
    text = " ".join(text.split())
    text = re.sub(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")


def code(text: str) -> str:
    """The same for code, such as a setting."""
    return plain(text) if set(text) & set("`|\n") else f"`{text}`"
