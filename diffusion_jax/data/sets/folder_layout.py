"""How a folder of pictures or recordings is sorted: splits, classes by sub-folder, captions."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from diffusion_jax.data.dataset import NO_CAPTIONS, Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.checked import check_sizes, held_out
from diffusion_jax.data.sets.folder_captions import Texts, read_captions
from diffusion_jax.data.sets.folder_files import Listing, some
from diffusion_jax.data.sets.folder_splits import split_folders
from diffusion_jax.system.texts import shown


class Arranged(NamedTuple):
    """Files of a folder by relative path."""

    parts: dict[str, list[str]]  # those of each split
    labels: dict[str, int]  # the class of each of them, 0 without classes
    class_names: tuple[str, ...]
    texts: Texts  # captions; empty for a folder without
    notes: tuple[str, ...]


def arranged(
    root: Path, listing: Listing, names: list[str], options: Options, noun: str = "images"
) -> Arranged:
    """Splits, classes and captions of the readable files `names`, as `load_folder` tells.

    `noun` names them in messages.

    Raises:
        DataError: as `load_folder`.
    """
    parts, within, of_splits = _parts(names, options, listing, noun)
    texts, of_texts = read_captions(root, listing.files, list(within), options.caption_key, noun)
    data_dir = shown(options.data_dir)
    classes = {} if texts else _classes(within, data_dir, noun)
    number = {name: i for i, name in enumerate(sorted(set(classes.values())))}
    labels = {name: number[classes[name]] if classes else 0 for name in within}
    notes = (
        *(*_on_empty(listing, names, noun), *of_splits),
        *(*of_texts, *_on_folders(within, bool(texts), data_dir)),
    )
    return Arranged(parts, labels, tuple(map(shown, number)), texts, notes)


def _parts(
    names: list[str], options: Options, listing: Listing, noun: str
) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]], list[str]]:
    """The files of each split, the path of each file within its split, and notes."""
    folders, notes = split_folders(names, options, "; ".join(listing.notes), noun)
    tops = {key: folders.get(key, folders.get("train", ".")) for key in ("train", "heldout")}
    if len(folders) == 2:
        parts = {key: [n for n in names if n.startswith(f"{tops[key]}/")] for key in tops}
    else:
        inside = [n for n in names if tops["train"] == "." or n.startswith(f"{tops['train']}/")]
        held = held_out(inside, options.heldout_fraction)
        parts = {
            key: [name for name, out in zip(inside, held, strict=True) if out == (key == "heldout")]
            for key in tops
        }
    train, heldout = parts["train"], parts["heldout"]
    check_sizes(len(train), len(heldout), options, noun)
    within = {
        name: PurePosixPath(name).relative_to(tops[key]).parts
        for key, part in parts.items()
        for name in part
    }
    return parts, within, [*notes, *_check_shared(listing, train, heldout, noun)]


def _check_shared(
    listing: Listing, train: Sequence[str], heldout: Sequence[str], noun: str
) -> list[str]:
    """A note on files linked from both splits; a DataError if a split has no others."""
    known = {listing.files[name] for name in train}
    shared = [name for name in heldout if listing.files[name] in known]
    if heldout and len(shared) == len(heldout):
        raise DataError(
            f"data.heldout_split: all {len(heldout)} held-out {noun} are files that are trained on "
            f"too, {shown(shared[0])} for one; hold out others."
        )
    num = f"{len(shared)} of {len(heldout)} held-out {noun} are"
    return [f"{num} files that are trained on too: {some(shared)}"] if shared else []


def _classes(within: dict[str, tuple[str, ...]], data_dir: str, noun: str) -> dict[str, str]:
    """The class of each name, its first sub-folder; empty if no file is in a sub-folder."""
    flat = [name for name, parts in within.items() if len(parts) == 1]
    if len(flat) == len(within):
        return {}
    if flat:
        raise DataError(
            f"data.dir='{data_dir}' holds {len(flat)} {noun} beside its sub-folders, "
            f"{shown(flat[0])} for one; put all of them into a sub-folder, their class, or none."
        )
    return {name: parts[0] for name, parts in within.items()}


def _on_empty(listing: Listing, names: Sequence[str], noun: str) -> list[str]:
    filled = {name.split("/")[0] for name in names}
    empty = [name for name in listing.folders if "/" not in name and name not in filled]
    return [f"no {noun.removesuffix('s')} is in the sub-folders {some(empty)}"] if empty else []


def _on_folders(within: dict[str, tuple[str, ...]], texts: bool, data_dir: str) -> list[str]:
    """Notes on sub-folders that could be mistaken for classes."""
    first, second = (
        sorted({parts[n] for parts in within.values() if len(parts) > n + 1}) for n in (0, 1)
    )
    if texts:
        why = (
            "has captions, so that its sub-folders are no classes; "
            f"data.caption_key={NO_CAPTIONS} reads no captions, and makes them classes"
        )
        return [why] if len(first) > 1 else []
    if not second:
        return []
    if len(first) > 1:
        why = f"its {len(first)} sub-folders are the classes, and those in them are not"
        return [f"{why}: {some(second)}"]
    place = f"{data_dir.rstrip('/')}/{shown(first[0])}"
    return [f"is of one class, {shown(first[0])}; data.dir='{place}' is of {some(second)}"]
