"""A folder of images as a data set; its sub-folders are classes, its metadata captions."""

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images, Look, look_at, suffixes
from diffusion_jax.data.sets.checked import common_shape, look_at_all, on_skipped
from diffusion_jax.data.sets.folder_captions import TEXTS
from diffusion_jax.data.sets.folder_files import Listing, list_files, some
from diffusion_jax.data.sets.folder_layout import arranged
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
    found = arranged(root, listing, list(looks), options)
    names, texts = list(found.labels), found.texts
    shape = common_shape([looks[name] for name in names], options)
    splits = {}
    for key, part in found.parts.items():
        labels = np.array([found.labels[name] for name in part], np.int32)
        source = PictureSource(Files(root, part), labels, size, shape)
        splits[key] = Split(source, Captions.of([texts[n] for n in part]) if texts else None)
    files = [(name, *stamp) for name, stamp in zip(names, stamps(root, names), strict=True)]
    notes = *listing.notes, *on_skipped(skipped), *_on_other_files(listing), *found.notes
    return Dataset(
        *(options.name, Images(shape), splits, found.class_names, tuple(map(shown, skipped))),
        fingerprint=content_hash(repr((files, len(found.parts["train"]))), size, shape[-1]),
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


def _on_other_files(listing: Listing) -> list[str]:
    """A note on files that are neither images nor possible texts, such as films."""
    ends = (*suffixes(), *TEXTS)
    other = [name for name in listing.files if not name.lower().endswith(ends)]
    words = (
        f"{len(other)} file is no image" if len(other) == 1 else f"{len(other)} files are no images"
    )
    return [f"{words}: {some(other)}"] if other else []
