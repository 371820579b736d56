"""Writes and reads `result.json`, and writes `report.md` and `report.html`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.report.figures import measured, plain, suffix, table
from diffusion_jax.report.html import write_page
from diffusion_jax.report.tables import result_tables
from diffusion_jax.system.files import read_json, write_whole

NOTES = {
    "top1": "A name counts as found if the judge finds the picture closer to it than to all other "
    "names. The judge is a small network trained on the training data alone, so that the figure to "
    "reach is that of real pictures, not 100%. Words for concept and for style both count.",
    "bits_ode": "Bits per dimension are those of a probability if data have levels, else of a "
    "density, for the network that draws, without guidance and clipping. `ode` is for the "
    "deterministic flow (an upper bound where its density is averaged over each level's bin); "
    "`bound` and `ancestral` are upper bounds for stochastic sampling, in infinitely many steps "
    "and in those of the grid.",
    "regret": "`regret` is what the network needs more than the source itself, in bits per "
    "character, of the same texts.",
    "entropy": "`entropy_N` is of runs of N tokens, in bits per token, within a text (`_pool`: of "
    "all texts): texts that repeat themselves have less than held-out ones. `copied` counts the "
    "characters of the longest part of a text that the training texts have too.",
    "psnr": "What comes back is decoded from the means of latents, and compared as it is stored. "
    "`kl_bits` is the divergence of an item's latents from a normal law, and `latent_std_I` the "
    "deviation of channel I, which codecs divide by.",
    "field": "`field_error` is the distance of the learned score from the exact one in units of "
    "the noise, sigma |s_hat - s| per dimension (the error of eps_hat); `_label` is under each "
    "point's own label. The divergence is -2 where the field leads to a point, -1 to a curve, "
    "above 0 where paths part.",
}
"""By the beginning of metrics' names: how to read them."""
MEMORISED = (
    "**Samples are copies of training data**: more samples than held-out data are too close to a "
    "training item, and much closer to it than to the next one. See the nearest pairs above."
)
NOT_MEMORISED = "No copies of training data are seen among the samples."


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes `result.json`, whole or not at all."""
    write_whole(path, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())


def read_result(path: Path) -> dict[str, dict[str, Any]] | None:
    """What `write_result` wrote; None if it is missing or damaged."""

    def parse(saved: Any) -> dict[str, dict[str, Any]]:
        fields = ("value", "low", "high", "n", "passport")
        return {name: {**{f: entry[f] for f in fields}, **entry} for name, entry in saved.items()}

    return read_json(path, parse, "evaluation writes it again")


def has_passport(path: Path, passport: Mapping[str, Any]) -> bool:
    """Whether `result.json` exists and all its passports contain `passport`."""
    result = read_result(path)
    if result is None:
        return False
    return all(passport.items() <= entry["passport"].items() for entry in result.values())


def write_report(
    path: Path,
    title: str,
    result: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, str],
    pictures: Sequence[tuple[str, str]],
    how_again: Sequence[str],
) -> None:
    """Writes a page, such as `report.md`, and the same as HTML (`write_page`).

    The result is as in `result.json`, `facts` are rows of the table "How it was made", and
    `how_again` are commands that reproduce it. Pictures are `(file relative to the page, caption)`;
    missing files are left out. Facts are Markdown; title and captions are plain text.
    """
    lines = [f"# {plain(title)}", ""]
    for file, caption in pictures:
        if (path.parent / file).exists():
            lines += [f"![{plain(caption)}]({file})", "", f"*{plain(caption)}*", ""]
    lines += ["## Results", "", result_tables(result), ""]
    result = measured(result)
    lines += _how_to_read(result)
    if (found := memorises(result)) is not None:
        lines += [MEMORISED if found else NOT_MEMORISED, ""]
    for metric, note in NOTES.items():
        if any(name.startswith(metric) for name in result):
            lines += [note, ""]
    lines += ["## How it was made", "", *table(("", ""), list(facts.items()))]
    lines += ["", "```", *how_again, "```", ""]
    write_page(path, "\n".join(lines))


def _how_to_read(result: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on the distances of the table, and on the intervals."""
    frechet = next((n for n in result if n.startswith(("frechet", "fd_"))), None)
    if frechet is None:
        return []
    entry, lines = result[frechet], []
    heldout = result.get(f"{frechet}_heldout")
    limit = result.get(frechet.replace("_", "_infinite_", 1))
    if heldout and heldout["value"] > 0 and not suffix(entry):
        ratio = entry["value"] / heldout["value"]
        lines.append(
            f"The samples' Frechet distance is {ratio:.2f} times that of the held-out data."
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
            f"With {entry['n']:,} samples the Frechet distance is about {bias:.2g} above that with "
            "infinitely many; compare runs of other numbers of samples by the extrapolated value."
        )
    if heldout and heldout["n"] != entry["n"]:
        lines.append(
            "Recall, coverage and distances without extrapolation depend on the number of items: "
            f"those of {heldout['n']:,} held-out data are no bound for {entry['n']:,} samples."
        )
    lines += [
        "",
        "Intervals are for the mean over sets of this number of samples, against this reference; "
        "those of recall and coverage also vary the reference.",
        "",
    ]
    return lines


def memorises(result: Mapping[str, Mapping[str, Any]]) -> bool | None:
    """Whether samples are copies of training data; None if that was not measured.

    They are if more samples than held-out items are too near to a training item, both by distance
    and relative to the next nearest one, beyond all intervals.
    """
    names = "memorised_share", "copied_share", "copied_share_heldout"
    if any(name not in result for name in names):
        return None
    near, copied, heldout = (result[name] for name in names)
    return bool(near["low"] > near["passport"]["quantile"] and copied["low"] > heldout["high"])
