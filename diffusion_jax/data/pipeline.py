"""Data sets by name, and the endless stream of training batches drawn from them."""

import functools
import os
import sys
from dataclasses import dataclass, replace
from typing import Any

import grain
import numpy as np
from absl import flags

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.folder import load_folder
from diffusion_jax.data.sources import ArraySource, Source, as_batch, content_hash, read_all
from diffusion_jax.data.tfds_sets import describe_tfds, load_tfds
from diffusion_jax.types import Embed

MEMORY_LIMIT = 2 * 2**30  # bytes of pixels up to which a set is held in memory unless told


@dataclass(frozen=True)
class Dataset:
    """A data set with the images to train on and those held out.

    Attributes:
        name: as it was asked for.
        train: random access to `{'image': uint8 [H, W, C], 'label': int}`.
        heldout: the same, for images never trained on; may be empty for a folder.
        image_shape: (H, W, C), the same for all images.
        num_classes: 0 for sets without classes.
        class_names: `num_classes` names.
        skipped: relative paths of files that could not be read.
        train_captions: texts of the training images; None for sets without.
        heldout_captions: texts of the held-out images; None for sets without.
        fingerprint: tells this data from any other, to key caches of what was computed from it:
            a hash of all pixels and labels for sets in memory, else of what the files are.
    """

    name: str
    train: Source
    heldout: Source
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    skipped: tuple[str, ...]
    fingerprint: str
    train_captions: Captions | None = None
    heldout_captions: Captions | None = None


def load_dataset(
    name: str,
    *,
    data_dir: str = "",
    manual_dir: str = "",
    image_size: int = 0,
    train_split: str = "train",
    heldout_split: str = "test",
    heldout_fraction: float = 0.1,
    memory: bool | None = None,
) -> Dataset:
    """Loads a data set, preparing it on first use.

    Args:
        name: `digits`, `fashion_mnist`, `folder` or any image set of TFDS, as
            `set[/config][:version]`.
        data_dir: for `folder`, the folder of images; else where prepared sets are kept, '' being
            TFDS's default.
        manual_dir: folder of files that the user fetched, for TFDS sets that ask for them and for
            `fashion_mnist`; '' is none.
        image_size: side in pixels to which images are resized (shorter side, antialiased) and
            cropped (centre); 0 keeps them as stored, and they must be alike.
        train_split: TFDS split, or sub-folder, to train on.
        heldout_split: TFDS split, or sub-folder, to hold out.
        heldout_fraction: in [0, 1); what a folder without such sub-folders holds out.
        memory: whether all images are decoded now and held in memory; None does so up to 2 GiB.

    Raises:
        DataError: one sentence on which setting is wrong and what is allowed.
    """
    if image_size < 0:
        raise DataError(f"data.image_size={image_size} must be 0 (as stored) or more pixels.")
    if not 0 <= heldout_fraction < 1:
        raise DataError(f"data.heldout_fraction={heldout_fraction} must lie in [0, 1).")
    if name == "folder":
        splits = load_folder(data_dir, image_size, train_split, heldout_split, heldout_fraction)
    else:
        splits = load_tfds(name, data_dir, manual_dir, image_size, train_split, heldout_split)
    train, heldout = splits.train, splits.heldout
    shape = train[0]["image"].shape
    fingerprint = content_hash(splits.identity, image_size)
    num_bytes = (len(train) + len(heldout)) * int(np.prod(shape))
    if memory or (memory is None and num_bytes <= MEMORY_LIMIT):
        train, heldout = read_all(train, shape), read_all(heldout, shape)
        fingerprint = content_hash(train.images, train.labels, heldout.images, heldout.labels)
    elif not len(heldout):  # nothing on disk would tell its shape
        heldout = read_all(heldout, shape)
    return Dataset(
        name=name,
        train=train,
        heldout=heldout,
        image_shape=shape,
        num_classes=len(splits.class_names),
        class_names=splits.class_names,
        skipped=splits.skipped,
        fingerprint=fingerprint,
    )


def describe_dataset(
    name: str, data_dir: str = "", manual_dir: str = "", image_size: int = 0
) -> Dataset | None:
    """A data set of TFDS that is not prepared yet, without images; None if it can be loaded.

    Args:
        name: as for `load_dataset`, and so are the others.
        data_dir: where prepared sets are kept.
        manual_dir: folder of files that the user fetched.
        image_size: side in pixels; 0 as stored.

    Raises:
        DataError: as `load_dataset`.
    """
    found = None if name == "folder" else describe_tfds(name, data_dir, manual_dir, image_size)
    if found is None:
        return None
    shape, class_names = found
    none = _no_images(shape)
    return Dataset(name, none, none, shape, len(class_names), class_names, (), "")


def without_images(dataset: Dataset, shape: tuple[int, int, int]) -> Dataset:
    """The same classes, and no images of another shape."""
    none = _no_images(shape)
    return replace(dataset, train=none, heldout=none, image_shape=shape)


def _no_images(shape: tuple[int, ...]) -> ArraySource:
    return ArraySource(np.empty((0, *shape), np.uint8), np.empty(0, np.int32))


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of one epoch, its coin flips and further bits, a pure function of its arguments.

    Raw Philox bits are used because NumPy fixes them for good, unlike its `permutation`.

    Returns:
        A permutation of `size` indices; for each place in it a fair bool, and a random uint64.
    """
    bits = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(3 * size)
    order, coins, rest = np.split(bits, 3)
    return np.argsort(order, kind="stable"), coins >> 63 == 1, rest


@dataclass(frozen=True)
class _Batches:
    """Random access to the endless stream of training batches of one process.

    All epochs in a row are one sequence of images, cut into global batches; each process has its
    own slice of every global batch. A batch thus depends on its index alone, and the global batch
    not on how many processes share it.
    """

    source: Source
    num_classes: int
    batch_size: int
    seed: int
    flip: bool
    process_index: int
    process_count: int
    captions: Captions | None = None
    embed: Embed | None = None

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = (index * self.process_count + self.process_index) * self.batch_size
        indices, coins, bits = self.places(start, start + self.batch_size)
        images, labels = self.source.gather(indices)
        if self.flip:
            images[coins] = images[coins, :, ::-1]
        batch = as_batch(images, labels, self.num_classes)
        if self.captions is not None and self.embed is not None:
            batch["cond"] |= self.embed(self.captions.drawn(indices, bits))
        return batch

    def places(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The images `start` to `stop` of the stream: indices, whether flipped, further bits."""
        size = len(self.source)
        parts = []
        for epoch in range(start // size, (stop - 1) // size + 1):
            part = slice(max(start - epoch * size, 0), stop - epoch * size)
            parts.append([column[part] for column in epoch_order(self.seed, epoch, size)])
        indices, flips, bits = (np.concatenate(column) for column in zip(*parts, strict=True))
        return indices, flips, bits


class _BatchIterator(grain.DatasetIterator):
    """Iterates over `_Batches` with prefetch; its state is the index of the next batch.

    Grain's own state depends on the number of workers. A batch is a function of its index, so
    this one restores exactly whatever the workers, and discards what was prefetched.
    """

    def __init__(self, batches: _Batches, read: grain.ReadOptions, num_workers: int):
        super().__init__()
        self._batches, self._read, self._num_workers = batches, read, num_workers
        self._next_index = 0
        self._inner: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, Any]:
        if self._inner is None:
            rest = grain.MapDataset.source(self._batches)[self._next_index :]
            stream = rest.to_iter_dataset(self._read)
            if self._num_workers:
                if not flags.FLAGS.is_parsed():  # Grain reads its flags to start workers
                    flags.FLAGS.mark_as_parsed()
                options = grain.MultiprocessingOptions(self._num_workers)
                stream = stream.mp_prefetch(options)
            self._inner = iter(stream)
        batch = next(self._inner)
        self._next_index += 1
        return batch

    def describe(self, index: int) -> str:
        """Which images batch number `index` of all processes has, in words."""
        size = self._batches.batch_size * self._batches.process_count
        images, *_ = self._batches.places(index * size, (index + 1) * size)
        named = ", ".join(map(str, images[:5])) + (", ..." if size > 5 else "")
        epoch = index * size // len(self._batches.source)
        return f"batch {index} (training images {named}; epoch {epoch})"

    def get_state(self) -> dict[str, int]:
        """The index of the next batch; can be written as JSON."""
        return {"next_index": self._next_index}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from a state of `get_state`."""
        self._stop()
        self._next_index = int(state["next_index"])

    def close(self) -> None:
        """Ends the threads and processes that prefetch."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    flip: bool = False,
    num_workers: int = 0,
    prefetch: int = 4,
    process_index: int = 0,
    process_count: int = 1,
    embed: Embed | None = None,
) -> grain.DatasetIterator:
    """Endless training batches; every image is seen once per epoch, in an order of its own.

    Args:
        dataset: from `load_dataset`.
        batch_size: images per batch of this process.
        seed: of the orders and flips, 0 or more. The same for all processes.
        flip: mirror each image left to right half of the time.
        num_workers: processes that decode images; sets in memory need none and start none.
        prefetch: batches made ahead, for sets on disk by as many threads; 0 makes each on demand.
        process_index: which of `process_count` processes this is.
        process_count: processes that share the data; no two see the same image in an epoch.
        embed: from numbers of texts int32 [B] to conditioning, arrays [B, ...]. One of the texts of
            each image is drawn anew in every epoch; None leaves them out.

    Returns:
        An iterator of `{'x': float32 [B, H, W, C] in [-1, 1], 'cond': {'label': int32 [B]}}`,
        without `label` for sets without classes. Its `get_state()` is `{'next_index': int}`.

    Raises:
        DataError: if a number is out of range.
    """
    for key, value, least in (
        ("train.batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("data.num_workers", num_workers, 0),
        ("data.prefetch", prefetch, 0),
    ):
        if value < least:
            raise DataError(f"{key}={value} must be {least} or more.")
    if not 0 <= process_index < process_count:
        raise DataError(f"process_index={process_index} must lie in [0, {process_count}).")
    resident = isinstance(dataset.train, ArraySource)
    threads = min(prefetch, 1 if resident else (os.cpu_count() or 1))
    batches = _Batches(
        source=dataset.train,
        num_classes=dataset.num_classes,
        batch_size=batch_size,
        seed=seed,
        flip=flip,
        process_index=process_index,
        process_count=process_count,
        captions=dataset.train_captions,
        embed=embed,
    )
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return _BatchIterator(batches, read, 0 if resident else num_workers)
