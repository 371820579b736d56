"""A folder of images as a data set; its sub-folders are classes, its metadata captions."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import NO_CAPTIONS, Dataset, Options, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images, Look, look_at, suffixes
from diffusion_jax.data.sets.checked import (
    check_sizes,
    common_shape,
    held_out,
    look_at_all,
    on_skipped,
)
from diffusion_jax.data.sets.folder_captions import TEXTS, read_captions
from diffusion_jax.data.sets.folder_files import Listing, list_files, some
from diffusion_jax.data.sets.folder_splits import split_folders
from diffusion_jax.data.sources import Files, PictureSource, content_hash
from diffusion_jax.system.files import path_of, readers, stamps
from diffusion_jax.system.texts import shown


def load_folder(options: Options) -> Dataset:
    """Finds and checks the images of a folder, and splits them.

    Sub-folders with usual names of splits are the splits, or those named `train_split` and
    `heldout_split` (`split_folders`). Otherwise `heldout_fraction` of the files, at least one, is
    held out by a hash of relative paths, so that new files do not move others. Below a split the
    first sub-folder is the class; without sub-folders there are no classes. With metadata, or a
    text file next to each, images have captions (`read_captions`) and no classes. They have one
    channel if all of them are grey.

    Raises:
        DataError: there are no readable images, they differ in size with `image_size` 0, only some
            are in sub-folders, a requested split is missing, empty, or consists of the other's
            files; and as `read_captions`.
    """
    data_dir, size, root = shown(options.data_dir), options.image_size, path_of(options.data_dir)
    if not options.data_dir or not root.is_dir():
        file = ", but a file: give the folder that holds the images" if root.is_file() else ""
        raise DataError(
            f"data.dir='{data_dir}' is not a folder{file}; data.name='folder' reads one."
        )
    listing = list_files(root)
    looks, skipped = _look_at_all(root, listing, size)
    if not looks:
        raise DataError(_no_image(data_dir, listing, skipped))
    parts, within, of_splits = _parts(list(looks), options, listing)
    names = list(within)
    shape = common_shape([looks[name] for name in names], options)
    texts, of_texts = read_captions(root, listing.files, names, options.caption_key)
    classes = {} if texts else _classes(within, data_dir)
    number = {name: i for i, name in enumerate(sorted(set(classes.values())))}
    splits = {}
    for key, part in parts.items():
        labels = [number[classes[name]] if classes else 0 for name in part]
        source = PictureSource(Files(root, part), np.array(labels, np.int32), size, shape)
        splits[key] = Split(source, Captions.of([texts[n] for n in part]) if texts else None)
    files = [(name, *stamp) for name, stamp in zip(names, stamps(root, names), strict=True)]
    notes = (
        *(*listing.notes, *on_skipped(skipped), *_on_other_files(listing)),
        *(*_on_empty(listing, looks), *of_splits),
        *(*of_texts, *_on_folders(within, bool(texts), data_dir)),
    )
    class_names, kind = tuple(map(shown, number)), Images(shape)
    return Dataset(
        *(options.name, kind, splits, class_names, tuple(map(shown, skipped))),
        fingerprint=content_hash(repr((files, len(parts["train"]))), size, shape[-1]),
        notes=notes,
    )


def _look_at_all(root: Path, listing: Listing, size: int) -> tuple[dict[str, Look], dict[str, str]]:
    """The `Look` of each readable image by relative path, and why others cannot be read."""
    ends = suffixes()
    names = [name for name in listing.files if PurePosixPath(name).suffix.lower() in ends]
    others = {
        name: why
        for name, why in listing.others.items()
        if name.endswith("/") or PurePosixPath(name).suffix.lower() in ends
    }
    looks, wrong = look_at_all(names, lambda name: look_at(root / name, size), readers(root))
    return looks, dict(sorted((others | wrong).items()))


def _no_image(data_dir: str, listing: Listing, skipped: dict[str, str]) -> str:
    """The message for a folder without a readable image."""
    ends = Counter(PurePosixPath(n).suffix.lower() for n in listing.files)
    there = [f"{end or 'no suffix'} ({num:,})" for end, num in ends.most_common()]
    why = [*on_skipped(skipped), *listing.notes]
    if there and not skipped:
        why.append(f"its files end in {some(there)}")
    return (
        f"data.dir='{data_dir}' holds no readable image"
        f"{': ' if why else ''}{'; '.join(why)}. Files may end in {', '.join(sorted(suffixes()))}."
    )


def _parts(
    names: list[str], options: Options, listing: Listing
) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]], list[str]]:
    """The images of each split, the path of each image within its split, and notes."""
    folders, notes = split_folders(names, options, "; ".join(listing.notes))
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
    check_sizes(len(train), len(heldout), options)
    within = {
        name: PurePosixPath(name).relative_to(tops[key]).parts
        for key, part in parts.items()
        for name in part
    }
    return parts, within, [*notes, *_check_shared(listing, train, heldout)]


def _check_shared(listing: Listing, train: Sequence[str], heldout: Sequence[str]) -> list[str]:
    """A note on files linked from both splits; a DataError if a split has no others."""
    known = {listing.files[name] for name in train}
    shared = [name for name in heldout if listing.files[name] in known]
    if heldout and len(shared) == len(heldout):
        raise DataError(
            f"data.heldout_split: all {len(heldout)} held-out images are files that are trained on "
            f"too, {shown(shared[0])} for one; hold out others."
        )
    num = f"{len(shared)} of {len(heldout)} held-out images are"
    return [f"{num} files that are trained on too: {some(shared)}"] if shared else []


def _classes(within: dict[str, tuple[str, ...]], data_dir: str) -> dict[str, str]:
    """The class of each name, its first sub-folder; empty if no image is in a sub-folder."""
    flat = [name for name, parts in within.items() if len(parts) == 1]
    if len(flat) == len(within):
        return {}
    if flat:
        raise DataError(
            f"data.dir='{data_dir}' holds {len(flat)} images beside its sub-folders, "
            f"{shown(flat[0])} for one; put every image into a sub-folder, its class, or none."
        )
    return {name: parts[0] for name, parts in within.items()}


def _on_other_files(listing: Listing) -> list[str]:
    """A note on files that are neither images nor possible texts, such as films."""
    ends = (*suffixes(), *TEXTS)
    other = [name for name in listing.files if not name.lower().endswith(ends)]
    words = (
        f"{len(other)} file is no image" if len(other) == 1 else f"{len(other)} files are no images"
    )
    return [f"{words}: {some(other)}"] if other else []


def _on_empty(listing: Listing, looks: dict[str, Look]) -> list[str]:
    filled = {name.split("/")[0] for name in looks}
    empty = [name for name in listing.folders if "/" not in name and name not in filled]
    return [f"no image is in the sub-folders {some(empty)}"] if empty else []


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
