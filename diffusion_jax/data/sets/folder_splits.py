"""Finds the sub-folders of a folder that are its splits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from diffusion_jax.data.dataset import Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.folder_files import some
from diffusion_jax.system.command_line import suggest
from diffusion_jax.system.texts import shown

USUAL = {
    "train": ("train", "training"),
    "heldout": (
        *("test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation"),
        *("heldout", "held_out", "holdout"),
    ),
}
"""Usual names of splits, in any case, in order of preference."""


def split_folders(
    names: Sequence[str], options: Options, left_out: str, noun: str = "images"
) -> tuple[dict[str, str], list[str]]:
    """The sub-folders to train on and to hold out, and notes on the choice.

    They have the names in the options, or usual names if these are the defaults.

    Args:
        names: relative paths of the items.
        options: of the data set.
        left_out: of the folder, for messages.
        noun: of the items.

    Returns:
        Paths under "train" and "heldout"; the second, or both, may be missing.

    Raises:
        DataError: a requested split is missing, or both are the same, or they are found below the
            sub-folders that would be classes.
    """
    folders = list(dict.fromkeys(name.split("/")[0] for name in names if "/" in name))
    found, asked = {}, []
    for key in USUAL:
        name, default = (getattr(each, f"{key}_split") for each in (options, Options))
        if name != default:
            asked.append(key)
            found[key] = _asked(key, options, names, folders, left_out, noun)
        elif match := usual(key, folders):
            found[key] = match
    if "heldout" in asked and "train" not in found:
        _asked("train", options, names, folders, left_out, noun)
    if len(found) == 2 and len(set(found.values())) == 1:
        raise DataError(
            f"data.heldout_split='{found['heldout']}' is what data.train_split trains on; give "
            "another sub-folder."
        )
    left = Counter(
        name.split("/")[0] if "/" in name else "beside its sub-folders"
        for name in names
        if not name.startswith(tuple(f"{folder}/" for folder in found.values()))
    )
    if len(found) < 2 and not asked and (left or "heldout" in found):
        _check_below(names, options.data_dir)
        why = "is taken for a class: a folder has splits if it has two, such as train and test"
        return {}, [f"the sub-folder '{shown(folder)}' {why}" for folder in found.values()]
    notes = []
    if len(found) == 1:
        notes.append(
            f"trains on the sub-folder '{shown(found['train'])}', and holds out a share of it "
            f"(data.heldout_fraction={options.heldout_fraction})"
        )
    elif left or list(found.values()) != [options.train_split, options.heldout_split]:
        train, heldout = map(shown, found.values())
        notes.append(
            f"trains on the sub-folder '{train}', and holds out '{heldout}' (data.train_split and "
            "data.heldout_split name others)"
        )
    if left:
        parts = some([f"{shown(name)} ({num:,} {noun})" for name, num in left.items()])
        notes.append(f"neither trained on nor held out: {parts}")
    return found, notes


def usual(key: str, names: Iterable[str]) -> str:
    """The preferred name that is usual for a split; '' if there is none."""
    known = {name.casefold(): name for name in sorted(names)}  # of equal ones the lower-case one
    return next((known[name] for name in USUAL[key] if name in known), "")


def _asked(
    key: str,
    options: Options,
    names: Sequence[str],
    folders: Sequence[str],
    left_out: str,
    noun: str,
) -> str:
    """The sub-folder that the options name for a split; a DataError if it has no item."""
    name: str = getattr(options, f"{key}_split")
    folder = PurePosixPath(name).as_posix()
    if not any(one.startswith(f"{folder}/") for one in names):
        raise DataError(
            f"data.{key}_split='{name}' is not a sub-folder of data.dir='{shown(options.data_dir)}'"
            f" that holds {noun}{f' ({left_out})' if left_out else ''}"
            f"{suggest(name, map(shown, folders))}"
        )
    return folder


def _check_below(names: Sequence[str], data_dir: str) -> None:
    """Raises a DataError if splits are below sub-folders (classes), or below a single one."""
    below: dict[str, set[str]] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) > 2:
            below.setdefault(parts[0], set()).add(parts[1])
    for folder, inner in below.items():
        pair = [usual(key, inner) for key in USUAL]
        if all(pair):
            alone = all(name.startswith(f"{folder}/") for name in names)
            place = f"{shown(data_dir).rstrip('/')}/{shown(folder)}"
            remedy = f"give data.dir='{place}'" if alone else "splits stand above classes"
            raise DataError(
                f"data.dir='{shown(data_dir)}' has the splits {some(pair)} below "
                f"'{shown(folder)}'; {remedy}."
            )
