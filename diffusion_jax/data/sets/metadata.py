"""Captions of image files from `metadata.jsonl`, as Hugging Face's imagefolder has them."""

import json
from collections.abc import Collection
from pathlib import Path

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
    found = [
        path
        for path in sorted(root.rglob(FILE_NAME))
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not found and key:
        raise DataError(
            f"data.caption_key='{key}' needs a file {FILE_NAME} in data.dir='{root}' or its "
            "sub-folders."
        )
    texts: dict[str, tuple[str, ...]] = {}
    places: dict[str, str] = {}
    for path in found:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            place = f"{path} line {number}"
            try:
                file, said = _entry(line, key)
                if not (path.parent / file).is_file():
                    raise ValueError(f" names {file}, which is not there.")
                name = (path.parent / file).relative_to(root).as_posix()
                if name in texts:
                    raise ValueError(
                        f" names {name} again, after {places[name]}; several captions of an image "
                        "are a list in one line."
                    )
            except ValueError as error:
                raise DataError(f"{place}{error}") from error
            texts[name], places[name] = said, place
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


def _entry(line: str, key: str) -> tuple[str, tuple[str, ...]]:
    """The file and the texts of a line; raises a ValueError to be said after its place."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f" is not JSON: {error}.") from error
    if not isinstance(record, dict):
        raise ValueError(" is not a JSON object with `file_name` and a text.")
    file = record.get("file_name")
    if not isinstance(file, str) or not file:
        raise ValueError(f" has no `file_name`, only {', '.join(record) or 'nothing'}.")
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise ValueError(f": file_name '{file}' must lie below the folder of that file.")
    keys = (key,) if key else USUAL_KEYS
    chosen = next((k for k in keys if k in record), None)
    if chosen is None:
        raise ValueError(
            f" has none of the keys {', '.join(keys)} (data.caption_key), only {', '.join(record)}."
        )
    value = record[chosen]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f": '{chosen}' must be a text or a list of texts, none empty.")
    return file, tuple(dict.fromkeys(text.strip() for text in texts))
