"""Random access to labelled items, in memory or on disk, and reading them in order."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diffusion_jax.data.images import read_image, resize_array
from diffusion_jax.data.kind import Kind

CHUNK = 256  # items read at once when a whole source is


class Source(Protocol):
    """Random access to labelled items of one kind; labels are 0 where there are none.

    Attributes:
        resident: whether reading needs no file: no threads or processes read ahead.
    """

    resident: bool

    def __len__(self) -> int:
        """The number of items."""

    def gather(
        self, rows: np.ndarray, draws: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads items `rows` [B]: as stored [B, *shape], and labels int32 [B].

        Args:
            rows: numbers of items.
            draws: uint64 [B] below 2**32, uniform: which part of a long item is read, or which
                variant. None: always the same one.
        """


class ArraySource:
    """Items as stored [N, *shape] and labels int32 [N] in memory."""

    resident = True

    def __init__(self, items: np.ndarray, labels: np.ndarray):
        self.items, self.labels = items, labels

    def __len__(self) -> int:
        return len(self.items)

    def gather(
        self, rows: np.ndarray, draws: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.items[rows], self.labels[rows]


class FileSource:
    """Image files decoded on access, as uint8 [H, W, 3].

    Args:
        root: folder that `names` are relative to.
        names: relative paths [N].
        labels: class of each file [N].
        size: side in pixels of the square that images are resized and cropped to; 0 as stored.
    """

    resident = False

    def __init__(self, root: Path, names: Sequence[str], labels: Sequence[int], size: int):
        self._root, self._names, self._size = root, names, size
        self._labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._names)

    def gather(
        self, rows: np.ndarray, draws: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        images = [read_image(self._root / self._names[i], self._size) for i in rows]
        return np.stack(images), self._labels[rows]


class RecordSource:
    """A TFDS data source, decoded on access.

    Args:
        records: what `tfds.core.DatasetBuilder.as_data_source` returns for one split.
        size: side in pixels of the square that images are resized and cropped to; 0 as stored.
        labelled: whether the records hold a class `label`.
    """

    resident = False

    def __init__(self, records: Any, size: int, labelled: bool):
        self._records, self._size, self._labelled = records, size, labelled

    def __len__(self) -> int:
        return len(self._records)

    def gather(
        self, rows: np.ndarray, draws: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        records = self._records.__getitems__(rows.tolist())
        images = [r["image"] for r in records]
        if self._size:
            images = [resize_array(image, self._size) for image in images]
        labels = [r["label"] for r in records] if self._labelled else [0] * len(records)
        return np.stack(images), np.array(labels, np.int32)


def read_all(source: Source, kind: Kind, count: int | None = None) -> ArraySource:
    """Decodes the first `count` items (all if None) once, with a thread per core."""
    count = len(source) if count is None else count
    items: np.ndarray = np.empty((count, *kind.shape), kind.stored)
    labels = np.empty(count, np.int32)

    def read(start: int) -> None:
        rows = np.arange(start, min(start + CHUNK, count))
        items[rows], labels[rows] = source.gather(rows)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, range(0, count, CHUNK)))
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
