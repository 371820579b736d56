"""Captions of image files from `metadata.jsonl`, as Hugging Face's imagefolder has them."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.data.errors import DataError

FILE_NAME = "metadata.jsonl"
USUAL_KEYS = ("text", "texts", "caption", "captions")


def read_metadata(root: Path, names: Collection[str], key: str) -> dict[str, tuple[str, ...]]:
    """The texts of each file, from every `metadata.jsonl` in a folder and below it.

    Each line is one JSON object: `file_name`, relative to the metadata file, and a text or a list
    of texts.

    Args:
        root: the folder.
        names: paths of its images relative to `root`, all of which need a text.
        key: of the texts; '' is the first of `text`, `texts`, `caption` and `captions` in a line.

    Returns:
        Texts by relative path, also of files that are not in `names`; empty without metadata.

    Raises:
        DataError: naming file and line, for a line that is not as above, a file that is not there
            or has two lines, and an image that has none.
    """
    texts: dict[str, tuple[str, ...]] = {}
    places: dict[str, str] = {}
    found = [
        path
        for path in sorted(root.rglob(FILE_NAME))
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    for path in found:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            place = f"{path} line {number}"
            record = _record(line, place)
            file = path.parent / _file_name(record, place)
            if not file.is_file():
                raise DataError(f"{place} names {record['file_name']}, which is not there.")
            name = file.relative_to(root).as_posix()
            if name in texts:
                raise DataError(
                    f"{place} names {name} again, after {places[name]}; several captions of an "
                    "image are a list in one line."
                )
            texts[name], places[name] = _texts(record, key, place), place
    if not found and key:
        raise DataError(
            f"data.caption_key='{key}' needs a file {FILE_NAME} in data.dir='{root}' or its "
            "sub-folders."
        )
    missing = [name for name in names if name not in texts] if found else []
    if missing:
        raise DataError(
            f"{found[0]} has no line for {missing[0]} ({len(missing)} images have none); every "
            "image of a folder with captions needs one."
        )
    return texts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").split("\n")  # splitlines would cut inside of texts
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.") from error


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}.") from error
    if not isinstance(record, dict):
        raise DataError(f"{place} is not a JSON object with `file_name` and a text.")
    return record


def _file_name(record: dict[str, Any], place: str) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{place} has no `file_name`, only {', '.join(record) or 'nothing'}.")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{place}: file_name '{name}' must lie below the folder of that file.")
    return name


def _texts(record: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
    keys: Sequence[str] = (key,) if key else USUAL_KEYS
    chosen = next((k for k in keys if k in record), None)
    if chosen is None:
        raise DataError(
            f"{place} has none of the keys {', '.join(keys)} (data.caption_key), only "
            f"{', '.join(record)}."
        )
    value = record[chosen]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{place}: '{chosen}' must be a text or a list of texts, none empty.")
    return tuple(dict.fromkeys(text.strip() for text in texts))
