"""Data sets of Hugging Face's `datasets`: from a folder, or by name on the hub."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images, Look, look_at
from diffusion_jax.data.sets.checked import check_sizes, common_shape, look_at_all, on_skipped
from diffusion_jax.data.sets.huggingface_columns import (
    caption_key,
    captions_of,
    image_key,
    label_key,
    numbers_of,
)
from diffusion_jax.data.sets.huggingface_tables import (
    Part,
    Pictures,
    find_parts,
    open_tables,
)
from diffusion_jax.data.sources import PictureSource, content_hash
from diffusion_jax.system.files import readers, stamp_of
from diffusion_jax.system.texts import shown

Looks = dict[tuple[str, int], tuple[Look, tuple[int, str]]]
"""By place and row, the `Look` of an image and the stamp of its bytes."""


def load_huggingface(options: Options) -> Dataset:
    """Opens a set of `datasets`, checks its images, and splits it.

    `data_dir` is a folder that `save_to_disk` wrote or that `load_dataset` reads (Parquet and Arrow
    files, images with metadata), or a name on the hub; `:config` at its end selects one of several
    configurations. The splits are those named `train_split` and `heldout_split`, or slices of them
    such as `train[:90%]`; or those with other usual names; if there is only one, `heldout_fraction`
    of its rows is held out, by a hash of their numbers. Columns are found by `huggingface_columns`.
    Images are read like those of folders.

    Raises:
        DataError: `datasets` is not installed; there is no such folder or set; a requested split or
            column is missing; an image lacks its class or its caption; and as `load_folder`.
    """
    parts, notes = find_parts(open_tables(options), options)
    features, size = parts["train"].table.features, options.image_size
    image, of_image = image_key(features, options)
    label, caption = label_key(features, options), caption_key(features, options)
    for part in parts.values():
        if lacking := {image, label, caption} - {"", *part.table.column_names}:
            raise DataError(
                f"data.dir='{shown(options.data_dir)}': {part.place} has no column "
                f"'{min(lacking)}', which {parts['train'].place} has."
            )
    looks, skipped = _look_at_all(parts, image, size)
    if not looks:
        why = "".join(f": {note}" for note in on_skipped(skipped, "pictures"))
        raise DataError(f"data.dir='{shown(options.data_dir)}' holds no readable image{why}.")
    parts = {
        key: dataclasses.replace(
            p, rows=np.array([r for r in p.rows if (p.place, r) in looks], int)
        )
        for key, p in parts.items()
    }
    check_sizes(len(parts["train"]), len(parts["heldout"]), options)
    seen = [looks[part.place, row] for part in parts.values() for row in part.rows]
    shape = common_shape([look for look, _ in seen], options)
    labels = {key: np.zeros(len(part), np.int32) for key, part in parts.items()}
    class_names: tuple[str, ...] = ()
    of_labels: list[str] = []
    if label:
        labels, class_names, of_labels = numbers_of(parts, label, options)
    splits = {
        key: Split(
            PictureSource(part.pictures(image), labels[key], size, shape),
            captions_of(part, caption, options) if caption else None,
        )
        for key, part in parts.items()
    }
    stamps = repr([stamp for _, stamp in seen])
    return Dataset(
        *(options.name, Images(shape), splits, class_names, tuple(skipped)),
        fingerprint=content_hash(stamps, *labels.values(), class_names, size, shape[-1]),
        notes=(*notes, *of_image, *of_labels, *on_skipped(skipped, "pictures")),
    )


def _look_at_all(parts: Mapping[str, Part], column: str, size: int) -> tuple[Looks, dict[str, str]]:
    """The `Look` of each readable image, and why others are not, by `PLACE row NUMBER`."""
    looks: Looks = {}
    skipped: dict[str, str] = {}
    for part in parts.values():
        whole = dataclasses.replace(part, rows=np.arange(len(part.table)))
        look = functools.partial(_look, whole.pictures(column), size)
        found, wrong = look_at_all(part.rows.tolist(), look, readers(Path()))
        looks |= {(part.place, row): one for row, one in found.items()}
        skipped |= {f"{part.place} row {row}": why for row, why in wrong.items()}
    return looks, skipped


def _look(pictures: Pictures, size: int, row: int) -> tuple[Look, tuple[int, str]]:
    (picture,) = pictures.of(np.array([row]))
    found, data = look_at(picture, size), picture.read_bytes()
    return found, stamp_of(data, len(data))
