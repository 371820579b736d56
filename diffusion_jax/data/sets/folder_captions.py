"""Captions of a folder's images: from metadata, as in Hugging Face's imagefolder, or text files.

Metadata is a `metadata.jsonl`, `.csv`, `.tsv` or `.parquet` in the folder or below it: each line
has the `file_name` of an image, relative to that file, and a text or a list of texts. Otherwise the
texts of `NAME.png` are the lines of `NAME.txt` or `NAME.caption`.
"""

import csv
import functools
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from diffusion_jax.data.dataset import NO_CAPTIONS
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.folder_files import some
from diffusion_jax.system.texts import read_text, shown

USUAL_KEYS = ("text", "texts", "caption", "captions")
BESIDE = (".txt", ".caption")
TEXTS = (*BESIDE, ".json", ".jsonl", ".csv", ".tsv", ".parquet")
ABOUT_FOLDERS = ("readme", "license", "licence")
KNOWN_PLACES = (
    "captions are read from a metadata.jsonl, .csv, .tsv or .parquet with the columns file_name "
    "and text, or else from NAME.txt beside every NAME.png"
)
Texts = dict[str, tuple[str, ...]]  # of images, by relative path


class Line(NamedTuple):
    """A line of metadata."""

    place: str  # file and line, for messages
    record: dict[Any, Any]


class Names:
    """Names of files, found despite differences between file systems."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names

    @functools.cached_property
    def _alike(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._names:
            found.setdefault(_loose(name), []).append(name)
        return found

    def find(self, name: str) -> str | None:
        """The file of that name; else the only one that differs just in case, slashes, accents."""
        alike = self._alike.get(_loose(name), [])
        return name if name in alike else alike[0] if len(alike) == 1 else None


def _loose(name: str) -> str:
    """A normal form of names that differ only in case, slashes or the encoding of accents."""
    path = PurePosixPath(name.replace("\\", "/")).as_posix()
    return unicodedata.normalize("NFC", path).casefold()


def read_captions(
    root: Path, files: Iterable[str], images: Sequence[str], key: str, noun: str = "images"
) -> tuple[Texts, list[str]]:
    """The texts of all images, or of none if there are no texts, and notes on their source.

    Args:
        root: folder to which names are relative.
        files: all files below it.
        images: those that need texts.
        noun: of these, for messages.
        key: of the texts in metadata; '' finds the usual ones, `NO_CAPTIONS` reads none.

    Raises:
        DataError: naming file and line, if the format is not that in the head of this module, an
            image is missing or has two lines of JSON, or has no text.
    """
    if key == NO_CAPTIONS:
        return {}, []
    files = list(files)
    known = Names(files)
    texts, used = _from_metadata(root, files, known, key)
    lacks = f"{shown(root / min(used))} has no line for" if used else ""
    if not used and key:
        raise DataError(
            f"data.caption_key='{key}' needs a file metadata.jsonl, or .csv, .tsv or .parquet, in "
            f"data.dir='{shown(root)}' or its sub-folders."
        )
    if not used:
        texts, used = _from_beside(root, files, known, images)
        lacks = (
            f"data.dir='{shown(root)}' has texts beside {noun}, but none, or an empty one, beside"
        )
    missing = [name for name in images if name not in texts]
    if used and missing:
        raise DataError(
            f"{lacks} {shown(missing[0])} ({len(missing)} {noun} have none); in a folder "
            f"with captions each needs one, or data.caption_key={NO_CAPTIONS} reads none."
        )
    unused = [f for f in files if f not in used and _may_be_captions(f)]
    noun = "file of texts is" if len(unused) == 1 else "files of texts are"
    note = f"{len(unused)} {noun} not used: {some(unused, 3)}; {KNOWN_PLACES}"
    return texts, [note] if unused else []


def _from_metadata(
    root: Path, files: Sequence[str], known: Names, key: str
) -> tuple[Texts, set[str]]:
    """The texts in metadata, and the files that have them."""
    used = set(_metadata(files))
    texts: Texts = {}
    places: dict[str, str] = {}
    for file in sorted(used):
        listed = file.endswith(".jsonl")  # several texts of an image are a list there
        for place, record in READERS[PurePosixPath(file).suffix](root / file):
            if not listed and "file_name" not in record:
                used.remove(file)  # about something else
                break
            try:
                name, said = _entry(record, key, PurePosixPath(file).parent, root, known)
                if listed and name in texts:
                    raise ValueError(
                        f" names {name} again, after {places[name]}; several captions of an image "
                        "are a list in one line."
                    )
            except ValueError as error:
                raise DataError(f"{place}{shown(error)}") from error
            texts[name] = tuple(dict.fromkeys((*texts.get(name, ()), *said)))
            places[name] = place
    return texts, used


def _from_beside(
    root: Path, files: Sequence[str], known: Names, images: Sequence[str]
) -> tuple[Texts, set[str]]:
    """The texts in `NAME.txt` or `NAME.png.txt` next to images, and the files that have them."""
    if not any(file.lower().endswith(BESIDE) for file in files):
        return {}, set()
    found = {}
    for name in images:
        stem = name.removesuffix(PurePosixPath(name).suffix)
        places = (known.find(start + end) for end in BESIDE for start in (stem, name))
        if file := next((place for place in places if place), None):
            found[name] = file
    texts = {name: said for name, file in found.items() if (said := _lines(root / file))}
    return texts, set(found.values())


def _may_be_captions(file: str) -> bool:
    name = file.rpartition("/")[2].lower()
    return name.endswith(TEXTS) and not name.startswith(ABOUT_FOLDERS)


def _metadata(files: Sequence[str]) -> Iterable[str]:
    """The files of metadata; of several in a folder only the one of the preferred format."""
    found: dict[str, str] = {}
    for suffix in READERS:
        for file in files:
            folder, _, name = file.rpartition("/")
            if name == f"metadata{suffix}":
                found.setdefault(folder, file)
    return found.values()


def _entry(
    record: dict[Any, Any], key: str, folder: PurePosixPath, root: Path, known: Names
) -> tuple[str, tuple[str, ...]]:
    """The file and the texts of a line; raises a ValueError whose message follows its place."""
    file = record.get("file_name")
    if not isinstance(file, str) or not file:
        raise ValueError(f" has no `file_name`, only {', '.join(map(str, record)) or 'nothing'}.")
    if Path(file).is_absolute() or ".." in file.replace("\\", "/").split("/"):
        raise ValueError(f": file_name '{file}' must lie below the folder of that file.")
    name = (folder / file).as_posix()
    found = known.find(name)
    if found is None and not (root / name).is_file():  # it may be hidden
        raise ValueError(f" names {file}, which is not there.")
    keys = (key,) if key else USUAL_KEYS
    chosen = next((k for k in keys if k in record), None)
    if chosen is None:
        raise ValueError(
            f" has none of the keys {', '.join(keys)}, only {', '.join(map(str, record))}; "
            f"data.caption_key names another, or '{NO_CAPTIONS}' to read none."
        )
    value = record[chosen]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f": '{chosen}' must be a text or a list of texts, none empty.")
    if any(shown(text) != text for text in texts):
        raise ValueError(f": '{chosen}' holds half of a character.")
    return found or name, tuple(text.strip() for text in texts)


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{shown(path)} cannot be read: {error}.") from error


def _of_json(path: Path) -> Iterator[Line]:
    for number, line in enumerate(_read(path).split("\n"), 1):  # splitlines splits inside texts
        if not line.strip():
            continue
        place = f"{shown(path)} line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place} is not JSON: {error}.") from error
        if not isinstance(record, dict):
            raise DataError(f"{place} is not a JSON object with `file_name` and a text.")
        yield Line(place, record)


def _of_table(path: Path) -> Iterator[Line]:
    """Lines of a table with commas, semicolons (as from some spreadsheets) or tabs."""
    text = _read(path)
    head = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        for row in rows:
            place = f"{shown(path)} line {rows.line_num}"
            if None in row and "file_name" in row:
                raise DataError(
                    f"{place} has more columns than the first line: a text with commas stands in "
                    "double quotes."
                )
            yield Line(place, row)
    except csv.Error as error:
        raise DataError(f"{shown(path)} line {rows.line_num} is no table: {error}.") from error


def _of_parquet(path: Path) -> Iterator[Line]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        records = parquet.read_table(io.BytesIO(path.read_bytes())).to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{shown(path)} cannot be read as Parquet: {reason}") from error
    for number, record in enumerate(records, 1):
        yield Line(f"{shown(path)} row {number}", record)


READERS: dict[str, Callable[[Path], Iterator[Line]]] = {
    ".jsonl": _of_json,
    ".csv": _of_table,
    ".tsv": _of_table,
    ".parquet": _of_parquet,
}
"""Readers of metadata by suffix, in order of preference."""


def _lines(path: Path) -> tuple[str, ...]:
    """The texts of a file, one per line."""
    lines = (line.strip() for line in _read(path).split("\n"))
    return tuple(dict.fromkeys(line for line in lines if line))
