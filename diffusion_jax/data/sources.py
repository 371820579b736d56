"""Random access to labelled items, in memory or on disk, and reading them in order."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Picture, read_image, resize_array
from diffusion_jax.data.kind import Kind
from diffusion_jax.system.files import each_file
from diffusion_jax.system.progress import tracked
from diffusion_jax.system.texts import shown

CHUNK = 256  # items read at a time of a whole source
Items = tuple[np.ndarray, np.ndarray]  # As stored [B, *shape], and labels int32 [B]


class Source(Protocol):
    """Random access to labelled items of one kind; labels are 0 if there are none."""

    resident: ClassVar[bool]  # whether items are in memory: then nothing is read ahead
    varies: ClassVar[bool]  # whether an item is another one with other `draws`

    def __len__(self) -> int:
        """The number of items."""

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        """Reads items `rows` [B].

        `draws`, uniform uint64 [B] below 2**32, select the part of a long item, or the variant;
        None is always the same one.
        """


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Items as stored [N, *shape] and labels int32 [N] in memory."""

    items: np.ndarray
    labels: np.ndarray
    resident: ClassVar[bool] = True
    varies: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.items)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        return self.items[rows], self.labels[rows]


class Pictures(Protocol):
    """Encoded images, by number."""

    def of(self, rows: np.ndarray) -> Sequence[Picture]:
        """The images number `rows` [B]."""


@dataclass(frozen=True, eq=False)
class Files:
    """Images, one file each."""

    root: Path  # folder to which `names` are relative
    names: Sequence[str]  # relative paths [N]

    def of(self, rows: np.ndarray) -> Sequence[Picture]:
        return [self.root / self.names[i] for i in rows]


@dataclass(frozen=True, eq=False)
class PictureSource:
    """Images decoded on access, as uint8 [H, W, C]."""

    pictures: Pictures
    labels: np.ndarray  # class of each image, int32 [N]
    size: int  # side in pixels of the square that images are resized and cropped to; 0 as stored
    shape: tuple[int, ...]  # of all of them
    resident: ClassVar[bool] = False
    varies: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        images = each_file(self._read, self.pictures.of(rows))
        return np.stack(images), self.labels[rows]

    def _read(self, picture: Picture) -> np.ndarray:
        image = read_image(picture, self.size, self.shape[-1])
        if image.shape != self.shape:
            sides = " x ".join(map(str, image.shape[:2]))
            raise DataError(f"{shown(picture)} has changed: it is now of {sides} pixels")
        return image


@dataclass(frozen=True, eq=False)
class RecordSource:
    """A TFDS data source, decoded on access."""

    records: Any  # what `tfds.core.DatasetBuilder.as_data_source` returns for one split
    size: int  # side in pixels of the square that images are resized and cropped to; 0 as stored
    labelled: bool  # whether the records have a class `label`
    resident: ClassVar[bool] = False
    varies: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        records = self.records.__getitems__(rows.tolist())
        images = [resize_array(r["image"], self.size) for r in records]
        labels = [r["label"] if self.labelled else 0 for r in records]
        return np.stack(images), np.array(labels, np.int32)


def read_all(source: Source, kind: Kind, count: int) -> ArraySource:
    """Decodes the first `count` items once, with a thread per core."""
    items: np.ndarray = np.empty((count, *kind.shape), kind.stored)
    labels = np.empty(count, np.int32)

    def read(start: int) -> None:
        rows = np.arange(start, min(start + CHUNK, count))
        items[rows], labels[rows] = source.gather(rows)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = range(0, count, CHUNK)
        list(tracked(pool.map(read, starts), "decoding", len(starts)))
    return ArraySource(items, labels)


def content_hash(*parts: Any) -> str:
    """A short hash of arrays by their bytes and of all else by its `repr`."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


def draw(*words: str) -> float:
    """A pseudorandom number in [0, 1) that depends on the words alone."""
    digest = hashlib.sha256(" ".join(words).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
