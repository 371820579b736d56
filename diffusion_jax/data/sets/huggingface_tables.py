"""Opens a set of Hugging Face's `datasets`, and finds its splits.

Its tables are memory-mapped Arrow files, with random access to rows.
"""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.data.dataset import Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Encoded, Picture
from diffusion_jax.data.sets.checked import Slice, check_overlap, held_out
from diffusion_jax.data.sets.folder_files import some
from diffusion_jax.data.sets.folder_splits import USUAL, usual
from diffusion_jax.system.command_line import suggest
from diffusion_jax.system.files import in_store, path_of
from diffusion_jax.system.runtime import cache_dir, unwritable
from diffusion_jax.system.texts import shown

ON_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""A name on the hub, `set` or `owner/set`."""
SAVED = ("state.json", "dataset_dict.json")
"""Files of which `save_to_disk` writes one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Training or held-out items: some rows of a table."""

    table: Any  # `datasets.Dataset`
    place: str  # of the table, for messages
    rows: np.ndarray  # int64 [N]

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self, column: str) -> list[Any]:
        """Values of a column in each row; the column is read as a whole: not for images."""
        found = self.table.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
        return [found[row] for row in self.rows.tolist()]

    def pictures(self, column: str) -> "Pictures":
        """The images in a column."""
        table = self.table.select_columns([column]).with_format("arrow")
        return Pictures(table, self.rows, self.place)


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Images in some rows of a table, read from its file on access."""

    table: Any  # `datasets.Dataset` of one column, in the format "arrow"
    rows: np.ndarray  # int64 [N]
    place: str  # of the table, for messages

    def of(self, rows: np.ndarray) -> Sequence[Picture]:
        numbers = self.rows[rows].tolist()
        cells = self.table[numbers].column(0).to_pylist()
        return [
            _picture(cell, f"{self.place} row {number}")
            for cell, number in zip(cells, numbers, strict=True)
        ]


def _picture(cell: Any, place: str) -> Picture:
    """The image in a cell: its bytes, bytes under `bytes`, or a file under `path`."""
    cell = cell if isinstance(cell, dict) else {"bytes": cell}
    if cell.get("bytes") is None and cell.get("path"):
        return Path(cell["path"])
    return Encoded(place, cell.get("bytes") or b"")


def open_tables(options: Options) -> Mapping[str, Any]:
    """The tables of a set, `datasets.Dataset` by split.

    Raises:
        DataError: the package is missing, or `data_dir` is not a folder or set that it can read.
    """
    words = shown(options.data_dir)
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "data.name='huggingface' needs the package datasets: pip install datasets"
        ) from error
    name, config = _name_of(options.data_dir)
    with _quiet():
        try:
            folder = Path(name)
            if any((folder / file).is_file() for file in SAVED):
                found = datasets.load_from_disk(name)
            else:
                kept = Path(datasets.config.HF_DATASETS_CACHE)
                if unwritable(kept):
                    kept = cache_dir() / "huggingface"
                found = datasets.load_dataset(name, config, cache_dir=str(kept))
        except Exception as error:  # from any package that these call
            reason = error.__cause__ if type(error).__name__ == "DatasetGenerationError" else error
            why = " ".join(str(reason or error).split()) or type(error).__name__
            if "Config name is missing" in why:
                what = "name one of its configurations by :config at the end of data.dir"
                why = why.partition(": ")[2].partition(" Example")[0]
            elif folder.is_dir():
                what = "Hugging Face's datasets cannot read that folder"
            else:
                what = "it is no folder here, and was not fetched from the Hugging Face hub"
            raise DataError(f"data.dir='{words}': {what} ({why[:400]}).") from error
    return found if isinstance(found, dict) else {"train": found}


def _name_of(words: str) -> tuple[str, str | None]:
    """The folder or the name on the hub in `data.dir`, and the configuration."""
    where, said = path_of(words), f"data.dir='{shown(words)}'"
    if in_store(where):
        raise DataError(
            f"{said}: data.name='huggingface' needs a folder on a disk; object stores hold "
            "data.name='folder'."
        )
    if where.is_file():
        raise DataError(f"{said} is a file: give the folder that holds it.")
    if words and where.is_dir():
        return str(where), None
    head, colon, config = words.rpartition(":")
    if colon and path_of(head).is_dir():
        return str(path_of(head)), config
    if not ON_THE_HUB.fullmatch(head if colon else words):
        raise DataError(
            f"{said} is not a folder, nor a name on the Hugging Face hub, such as owner/set; "
            "data.name='huggingface' reads one."
        )
    return (head, config) if colon else (words, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context: no progress bars if they would be written to a file."""
    import datasets

    if sys.stderr.isatty() or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def find_parts(tables: Mapping[str, Any], options: Options) -> tuple[dict[str, Part], list[str]]:
    """Training and held-out items of a set, and notes on how they were found.

    Raises:
        DataError: a requested split is missing, or all held-out items are trained on.
    """
    import datasets

    specs, notes = _splits(list(tables), options)
    slices = {key: _slices(spec, key, tables, options) for key, spec in specs.items()}
    used = {part.split for each in slices.values() for part in each}
    left = [f"{name} ({len(table):,} images)" for name, table in tables.items() if name not in used]
    notes += [f"neither trained on nor held out: {some(left)}"] if left else []
    parts = {}
    for key, spec in specs.items():
        some_of = [tables[s.split].select(range(s.start, s.stop)) for s in slices[key]]
        table = datasets.concatenate_datasets(some_of) if len(some_of) > 1 else some_of[0]
        parts[key] = Part(table, spec, np.arange(len(table)))
    if len(parts) == 2:
        return parts, [*notes, *check_overlap(options, slices["train"], slices["heldout"])]
    (part,) = parts.values()
    held = held_out(list(map(str, part.rows)), options.heldout_fraction)
    whose = {"train": ~held, "heldout": held}
    return {
        key: dataclasses.replace(part, rows=part.rows[mine]) for key, mine in whose.items()
    }, notes


def _splits(names: list[str], options: Options) -> tuple[dict[str, str], list[str]]:
    """Splits or slices to train on and to hold out, and notes; the second may be missing."""
    found, asked = {}, []
    for key in USUAL:
        name, default = (getattr(each, f"{key}_split") for each in (options, Options))
        if name != default:
            asked.append(key)
            found[key] = name
        elif match := usual(key, names):
            found[key] = match
    if "train" not in found and len(names) == 1:
        found = {"train": names[0], **{key: found[key] for key in asked}}
    if "train" not in found:
        raise DataError(
            f"data.dir='{shown(options.data_dir)}' has the splits {some(names)}; data.train_split "
            "names the one to train on."
        )
    if len(found) == 1 and len(names) > 1:
        how = f"holds out a share of it (data.heldout_fraction={options.heldout_fraction})"
        return found, [f"trains on the split '{found['train']}', and {how}"]
    if len(found) == 2 and list(found.values()) != [options.train_split, options.heldout_split]:
        how = (
            f"holds out '{found['heldout']}' (data.train_split and data.heldout_split name others)"
        )
        return found, [f"trains on the split '{found['train']}', and {how}"]
    return found, []


def _slices(spec: str, key: str, tables: Mapping[str, Any], options: Options) -> list[Slice]:
    """The slices of a split, of a slice, or of a sum of these."""
    import datasets

    sizes = {name: len(table) for name, table in tables.items()}
    try:
        absolute = datasets.ReadInstruction.from_spec(spec).to_absolute(sizes)
    except (AssertionError, ValueError) as error:
        raise DataError(
            f"data.{key}_split='{spec}' is not a split of data.dir='{shown(options.data_dir)}', "
            f"nor a slice of one, such as train[:90%]{suggest(spec, sizes)}"
        ) from error
    return [Slice(p.splitname, p.from_ or 0, p.to or sizes[p.splitname]) for p in absolute]
