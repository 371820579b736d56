"""A folder of images as a data set; its sub-folders are classes, its metadata captions."""

import hashlib
import json
import logging
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images, upright_size
from diffusion_jax.data.sources import FileSource, content_hash, draw

METADATA = "metadata.jsonl"
USUAL_KEYS = ("text", "texts", "caption", "captions")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DIGESTED = 2**16  # bytes of each file that the fingerprint knows, beside its size and name


def load_folder(options: Options) -> Dataset:
    """Finds and checks the images of a folder, and splits them.

    If `data_dir` has sub-folders named `train_split` and `heldout_split`, these are the splits.
    Otherwise `heldout_fraction` of the files, and at least one, is held out by a hash of their
    relative paths, so that adding files moves no others. Below that, the first sub-folder is the
    class; images without sub-folders have none. With a `metadata.jsonl` in the folder or below it
    the images have captions and no classes, as in Hugging Face's imagefolder: each line is a JSON
    object with `file_name`, relative to that file, and a text or a list of texts.

    Raises:
        DataError: if there are no readable images, they differ in size with `image_size` 0, only
            some lie in sub-folders, a split that was asked for is left empty; naming file and line,
            for a line of metadata that is not as above, an image that is not there or has two
            lines, and one that has none.
    """
    data_dir, size = options.data_dir, options.image_size
    asked = {"train": options.train_split, "heldout": options.heldout_split}
    root = Path(data_dir).expanduser()
    if not data_dir or not root.is_dir():
        raise DataError(f"data.dir='{data_dir}' is not a folder; data.name='folder' reads one.")
    sizes, skipped = _readable(root)
    if not sizes:
        raise DataError(
            f"data.dir='{data_dir}' holds no readable image ({len(skipped)} could not be read); "
            f"files may end in {', '.join(SUFFIXES)}."
        )
    if skipped:
        logging.getLogger(__name__).warning(
            "Skipped %d unreadable files under %s: %s", len(skipped), root, ", ".join(skipped)
        )
    by_folder = all((root / split).is_dir() for split in asked.values())
    if by_folder:
        parts = {key: [n for n in sizes if n.startswith(f"{asked[key]}/")] for key in asked}
    else:
        parts = _split(list(sizes), options.heldout_fraction)
    train, heldout = parts["train"], parts["heldout"]
    if not train or (not heldout and (by_folder or options.heldout_fraction)):
        raise DataError(
            f"data.dir='{data_dir}' leaves {len(train)} images to train on and {len(heldout)} "
            f"held out (data.heldout_fraction={options.heldout_fraction}); neither may be 0."
        )
    names = train + heldout
    shapes = sorted({sizes[name] for name in names})
    if not size and len(shapes) > 1:
        raise DataError(
            "data.image_size=0 keeps images as stored, but the folder has heights and widths "
            f"from {shapes[0]} to {shapes[-1]}; give the side in pixels to resize and crop to."
        )
    texts = _metadata(root, names, options.caption_key)
    classes = {} if texts else _classes(names, by_folder, data_dir)
    class_names = tuple(sorted(set(classes.values())))
    splits = {}
    for key, part in parts.items():
        labels = [class_names.index(classes[name]) if classes else 0 for name in part]
        source = FileSource(root, part, np.array(labels, np.int32), size)
        splits[key] = Split(source, Captions.of([texts[n] for n in part]) if texts else None)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(zip(names, pool.map(lambda name: _digest(root / name), names), strict=True))
    fingerprint = content_hash(repr((files, len(train))), size)
    kind = Images((size, size, 3) if size else (*shapes[0], 3))
    return Dataset(options.name, kind, splits, class_names, skipped, fingerprint)


def _digest(path: Path) -> tuple[int, str]:
    """What tells a file from others, and a copy of it does not change: its size and beginning."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.sha256(file.read(DIGESTED)).hexdigest()


def _files(root: Path) -> list[Path]:
    """All files below a folder but for hidden ones."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)
        and path.is_file()
    ]


def _readable(root: Path) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    """(height, width) of all images that decode, by relative path, and paths of the others."""
    images = [path for path in _files(root) if path.suffix.lower() in SUFFIXES]
    names = sorted(path.relative_to(root).as_posix() for path in images)

    def size(name: str) -> tuple[int, int] | None:
        try:
            return upright_size(root / name)
        except Exception:  # Pillow raises almost anything for a broken file
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(zip(names, pool.map(size, names), strict=True))
    return {name: s for name, s in found if s}, tuple(name for name, s in found if not s)


def _split(names: list[str], fraction: float) -> dict[str, list[str]]:
    """Holds out names by a draw of each; at least the lowest if `fraction` > 0."""
    draws = {name: draw(name) for name in names}
    bar = max(fraction, np.nextafter(min(draws.values()), 1)) if fraction else 0.0
    return {
        "train": [name for name in names if draws[name] >= bar],
        "heldout": [name for name in names if draws[name] < bar],
    }


def _classes(names: list[str], by_folder: bool, data_dir: str) -> dict[str, str]:
    """The class of each name, its first sub-folder; none where all lie in no sub-folder."""
    parts = {name: PurePosixPath(name).parts[by_folder:] for name in names}
    flat = sum(len(part) == 1 for part in parts.values())
    if flat == len(names):
        return {}
    if flat:
        raise DataError(
            f"data.dir='{data_dir}' holds {flat} images beside its sub-folders; put every image "
            "into a sub-folder, its class, or none."
        )
    return {name: part[0] for name, part in parts.items()}


def _metadata(root: Path, names: Collection[str], key: str) -> dict[str, tuple[str, ...]]:
    """The texts of each file, from every `metadata.jsonl` in a folder and below it.

    Each line is one JSON object: `file_name`, relative to the metadata file, and a text or a list
    of texts at `key`, or if that is '' at the first of `USUAL_KEYS` in the line. All of `names`
    need a text. Nothing is returned if there is no such file.
    """
    found = [path for path in _files(root) if path.name == METADATA]
    if not found and key:
        raise DataError(
            f"data.caption_key='{key}' needs a file {METADATA} in data.dir='{root}' or its "
            "sub-folders."
        )
    texts: dict[str, tuple[str, ...]] = {}
    places: dict[str, str] = {}
    for path in found:
        try:
            lines = path.read_text("utf-8-sig").split("\n")  # splitlines would cut inside of texts
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error}.") from error
        for number, line in enumerate(lines, 1):
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
