"""Finds the columns of images, classes and captions in a table of Hugging Face's `datasets`.

Of several, the one with a usual name is used, or the one that `data.image_key`, `data.label_key` or
`data.caption_key` names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import NO_CAPTIONS, Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.folder_captions import USUAL_KEYS
from diffusion_jax.data.sets.huggingface_tables import Part
from diffusion_jax.system.texts import shown

IMAGE_KEYS = ("image", "img", "picture", "photo", "png", "jpg", "jpeg", "webp")
LABEL_KEYS = ("label", "labels", "class", "category")
"""The usual names, in order of preference."""


def image_key(features: Mapping[str, Any], options: Options) -> tuple[str, list[str]]:
    """The column of the images, and a note if there are others.

    Raises:
        DataError: there is none, or none of several has a usual name.
    """
    found = [key for key, feature in features.items() if _is_image(key, feature)]
    if key := options.image_key:
        if key not in found:
            what = f"no column of pictures, which are {_listed(found)}"
            raise DataError(f"data.image_key='{key}' is {what}.")
        return key, []
    if not found:
        raise DataError(
            f"data.dir='{shown(options.data_dir)}' has no column of pictures, only "
            f"{_listed(features)}."
        )
    usual = [key for key in IMAGE_KEYS if key in found]
    if len(found) > 1 and not usual:
        raise DataError(
            f"data.dir='{shown(options.data_dir)}' has several columns of pictures, "
            f"{_listed(found)}; data.image_key names the one to train on."
        )
    key = (usual or found)[0]
    others = _listed([other for other in found if other != key])
    why = f"its pictures are the column '{key}' (data.image_key names another: {others})"
    return key, [why] if len(found) > 1 else []


def _is_image(key: str, feature: Any) -> bool:
    """Whether a column has images, by its feature, or by its format in tables without features.

    There cells are `{bytes, path}`, or bytes alone in a column with a usual name.
    """
    import datasets

    if isinstance(feature, dict):
        return _dtype(feature.get("bytes")) in ("binary", "large_binary")
    binary = key in IMAGE_KEYS and _dtype(feature) in ("binary", "large_binary")
    return isinstance(feature, datasets.Image) or binary


def _dtype(feature: Any) -> str:
    return str(getattr(feature, "dtype", ""))


def label_key(features: Mapping[str, Any], options: Options) -> str:
    """The column of the classes: of class labels, integers, booleans or texts; '': none.

    Raises:
        DataError: the requested one has another type, or several are of class labels, none with a
            usual name.
    """
    if options.label_key == NO_CAPTIONS:
        return ""
    found = [key for key, feature in features.items() if _is_label(feature)]
    if key := options.label_key:
        if key not in found:
            what = "no column of class labels, whole numbers, truth values or texts, which are"
            raise DataError(f"data.label_key='{key}' is {what} {_listed(found)}.")
        return key
    if usual := [key for key in LABEL_KEYS if key in found]:
        return usual[0]
    sure = [key for key in found if hasattr(features[key], "names")]
    if len(sure) > 1:
        raise DataError(
            f"data.dir='{shown(options.data_dir)}' has several columns of classes, "
            f"{_listed(sure)}; data.label_key names one, or {NO_CAPTIONS}."
        )
    return sure[0] if sure else ""


def _is_label(feature: Any) -> bool:
    dtype = _dtype(feature)
    return dtype in ("bool", "string", "large_string") or dtype.startswith(("int", "uint"))


def caption_key(features: Mapping[str, Any], options: Options) -> str:
    """The column of the captions, of texts or of lists of texts; '' for none.

    Raises:
        DataError: the requested one is not.
    """
    if options.caption_key == NO_CAPTIONS:
        return ""
    found = [key for key, feature in features.items() if _is_text(feature)]
    if (key := options.caption_key) and key not in found:
        raise DataError(
            f"data.caption_key='{key}' is no column of texts, which are {_listed(found)}."
        )
    return key or next((key for key in USUAL_KEYS if key in found), "")


def _is_text(feature: Any) -> bool:
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return _dtype(inner) in ("string", "large_string")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, names)) or "none"


def numbers_of(
    parts: Mapping[str, Part], column: str, options: Options
) -> tuple[dict[str, np.ndarray], tuple[str, ...], list[str]]:
    """The class of each row of some parts, int32 [N]; the names of classes; a note if it has none.

    Values of a column without class names are sorted. If there are more of them than half of the
    images, they are not used as classes, unless the column was requested.

    Raises:
        DataError: a row has no class.
    """
    cells = {key: part.cells(column) for key, part in parts.items()}
    everything = [cell for of_part in cells.values() for cell in of_part]
    names = getattr(parts["train"].table.features[column], "names", None)
    values = range(len(names)) if names else sorted({v for v in everything if v is not None})
    if not (options.label_key or names) and 2 * len(values) > len(everything):
        numbers = {key: np.zeros(len(part), np.int32) for key, part in parts.items()}
        why = f"has {len(values):,} values in {len(everything):,} images, and is not of classes"
        return numbers, (), [f"the column '{column}' {why}"]
    number = {value: i for i, value in enumerate(values)}
    numbers = {}
    for key, of_part in cells.items():
        for row, cell in zip(parts[key].rows, of_part, strict=True):
            if cell not in number:
                raise _lacks(options, "label", column, parts[key].place, row)
        numbers[key] = np.array([number[cell] for cell in of_part], np.int32)
    return numbers, tuple(map(str, names or values)), []


def captions_of(part: Part, column: str, options: Options) -> Captions:
    """The texts of each row of a part.

    Raises:
        DataError: a row has none.
    """
    texts = []
    for row, cell in zip(part.rows, part.cells(column), strict=True):
        several = cell if isinstance(cell, list) else [cell]
        texts.append([text for text in dict.fromkeys((t or "").strip() for t in several) if text])
        if not texts[-1]:
            raise _lacks(options, "caption", column, part.place, row)
    return Captions.of(texts)


def _lacks(options: Options, what: str, column: str, place: str, row: int) -> DataError:
    return DataError(
        f"data.dir='{shown(options.data_dir)}': {place} row {row} has no {what} in the column "
        f"'{column}'; every image needs one, or data.{what}_key={NO_CAPTIONS} reads none."
    )
