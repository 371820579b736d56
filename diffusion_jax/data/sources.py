"""Random access to labelled images, in memory or on disk, and reading them in order."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.images import read_image, resize_array, to_float

CHUNK = 256  # images read at once when a whole source is


class Source(Protocol):
    """Random access to labelled images of one shape; labels are 0 where there are none."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{'image': uint8 [H, W, C], 'label': int}`."""

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images `indices` [B]: uint8 [B, H, W, C] and labels int32 [B]."""


class _Source:
    """What all sources share: one element is a gather of one."""

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict[str, Any]:
        images, labels = self.gather(np.array([index]))
        return {"image": images[0], "label": int(labels[0])}


class ArraySource(_Source):
    """Images uint8 [N, H, W, C] and labels int32 [N] in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images `indices` [B]: uint8 [B, H, W, C] and labels int32 [B]."""
        return self.images[indices], self.labels[indices]


class FileSource(_Source):
    """Image files decoded on access, as uint8 [H, W, 3].

    Args:
        root: folder that `names` are relative to.
        names: relative paths [N].
        labels: class of each file [N].
        size: side in pixels of the square that images are resized and cropped to; 0 as stored.
    """

    def __init__(self, root: Path, names: Sequence[str], labels: Sequence[int], size: int):
        self._root, self._names, self._size = root, names, size
        self._labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._names)

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images `indices` [B]: uint8 [B, H, W, 3] and labels int32 [B]."""
        images = [read_image(self._root / self._names[i], self._size) for i in indices]
        return np.stack(images), self._labels[indices]


class RecordSource(_Source):
    """A TFDS data source, decoded on access.

    Args:
        records: what `tfds.core.DatasetBuilder.as_data_source` returns for one split.
        size: side in pixels of the square that images are resized and cropped to; 0 as stored.
        labelled: whether the records hold a class `label`.
    """

    def __init__(self, records: Any, size: int, labelled: bool):
        self._records, self._size, self._labelled = records, size, labelled

    def __len__(self) -> int:
        return len(self._records)

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images `indices` [B]: uint8 [B, H, W, C] and labels int32 [B]."""
        records = self._records.__getitems__(indices.tolist())
        images = [r["image"] for r in records]
        if self._size:
            images = [resize_array(image, self._size) for image in images]
        labels = [r["label"] for r in records] if self._labelled else [0] * len(records)
        return np.stack(images), np.array(labels, np.int32)


def read_all(source: Source, shape: tuple[int, ...], count: int | None = None) -> ArraySource:
    """Decodes the first `count` images (all if None) of `shape` once, with a thread per core."""
    count = len(source) if count is None else count
    images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int32)

    def read(start: int) -> None:
        rows = np.arange(start, min(start + CHUNK, count))
        images[rows], labels[rows] = source.gather(rows)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, range(0, count, CHUNK)))
    return ArraySource(images, labels)


def arrays(source: Source, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first `limit` images (all if None) as uint8 [N, H, W, C], and labels int32 [N]."""
    count = len(source) if limit is None else min(limit, len(source))
    if not isinstance(source, ArraySource):
        source = read_all(source, source[0]["image"].shape, count)
    return source.images[:count], source.labels[:count]


def as_batch(images: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Images uint8 [B, H, W, C] and labels [B] as a training batch.

    Returns:
        `{'x': float32 [B, H, W, C] in [-1, 1], 'cond': {'label': int32 [B]}}`; `cond` is empty
        for sets without classes (`num_classes` 0).
    """
    return {"x": to_float(images), "cond": {"label": labels} if num_classes else {}}


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


class Splits(NamedTuple):
    """What a reader of one kind of data set hands to `load_dataset`.

    Attributes:
        train: the images to train on.
        heldout: the images to measure on.
        class_names: one name a class; empty for sets without classes.
        skipped: names of files that could not be read.
        identity: what tells this data from other data without reading all of it.
        train_captions: texts of the images to train on, if they have any.
        heldout_captions: texts of the images to measure on.
    """

    train: Source
    heldout: Source
    class_names: tuple[str, ...]
    skipped: tuple[str, ...]
    identity: str
    train_captions: Captions | None = None
    heldout_captions: Captions | None = None
