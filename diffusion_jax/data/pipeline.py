"""Data sets by name."""

from dataclasses import dataclass, replace

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.folder import load_folder
from diffusion_jax.data.sets.tfds_sets import describe_tfds, load_tfds
from diffusion_jax.data.sources import ArraySource, Source, content_hash, read_all

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
        fingerprint: tells this data from any other, to key caches of what was computed from it:
            a hash of all pixels and labels for sets in memory, else of what the files are; and of
            the captions.
        train_captions: the texts of the images to train on; None for sets without.
        heldout_captions: the same for the held-out images.
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
    caption_key: str = "",
    memory: bool | None = None,
) -> Dataset:
    """Loads a data set, preparing it on first use.

    Args:
        name: `digits`, `fashion_mnist`, `emoji`, `folder` or any image set of TFDS, as
            `set[/config][:version]`.
        data_dir: for `folder`, the folder of images; else where prepared sets are kept, '' being
            TFDS's default.
        manual_dir: folder of files that the user fetched, for TFDS sets that ask for them, for
            `fashion_mnist` and for more styles of `emoji`; '' is none.
        image_size: side in pixels to which images are resized (shorter side, antialiased) and
            cropped (centre); 0 keeps them as stored, and they must be alike. `emoji` are drawn at
            this side, 0 being 32.
        train_split: TFDS split, or sub-folder, to train on.
        heldout_split: TFDS split, or sub-folder, to hold out.
        heldout_fraction: in [0, 1); what a folder without such sub-folders holds out.
        caption_key: where a folder's `metadata.jsonl` or a TFDS set has its captions; '' finds the
            usual names.
        memory: whether all images are decoded now and held in memory; None does so up to 2 GiB.

    Raises:
        DataError: one sentence on which setting is wrong and what is allowed.
    """
    if image_size < 0:
        raise DataError(f"data.image_size={image_size} must be 0 (as stored) or more pixels.")
    if not 0 <= heldout_fraction < 1:
        raise DataError(f"data.heldout_fraction={heldout_fraction} must lie in [0, 1).")
    if name == "folder":
        splits = load_folder(
            data_dir, image_size, train_split, heldout_split, heldout_fraction, caption_key
        )
    else:
        splits = load_tfds(
            name, data_dir, manual_dir, image_size, train_split, heldout_split, caption_key
        )
    train, heldout = splits.train, splits.heldout
    shape = train[0]["image"].shape
    fingerprint = content_hash(splits.identity, image_size)
    num_bytes = (len(train) + len(heldout)) * int(np.prod(shape))
    if memory or (memory is None and num_bytes <= MEMORY_LIMIT):
        train, heldout = read_all(train, shape), read_all(heldout, shape)
        fingerprint = content_hash(train.images, train.labels, heldout.images, heldout.labels)
    elif not len(heldout):  # nothing on disk would tell its shape
        heldout = read_all(heldout, shape)
    for captions in (splits.train_captions, splits.heldout_captions):
        if captions is not None:
            fingerprint = content_hash(fingerprint, *captions.parts())
    return Dataset(
        name=name,
        train=train,
        heldout=heldout,
        image_shape=shape,
        num_classes=len(splits.class_names),
        class_names=splits.class_names,
        skipped=splits.skipped,
        fingerprint=fingerprint,
        train_captions=splits.train_captions,
        heldout_captions=splits.heldout_captions,
    )


def describe_dataset(
    name: str,
    data_dir: str = "",
    manual_dir: str = "",
    image_size: int = 0,
    caption_key: str = "",
) -> Dataset | None:
    """A data set of TFDS that is not prepared yet, without images; None if it can be loaded.

    A set with captions has empty ones.

    Args:
        name: as for `load_dataset`, and so are the others.
        data_dir: where prepared sets are kept.
        manual_dir: folder of files that the user fetched.
        image_size: side in pixels; 0 as stored.
        caption_key: where the captions are.

    Raises:
        DataError: as `load_dataset`.
    """
    if name == "folder":
        return None
    found = describe_tfds(name, data_dir, manual_dir, image_size, caption_key)
    if found is None:
        return None
    shape, class_names, captioned = found
    none, captions = _no_images(shape), Captions.of([]) if captioned else None
    classes = (len(class_names), class_names)
    return Dataset(name, none, none, shape, *classes, (), "", captions, captions)


def without_images(dataset: Dataset, shape: tuple[int, int, int]) -> Dataset:
    """The same classes, and no images of another shape; empty captions if there were any."""
    none = _no_images(shape)
    captions = None if dataset.train_captions is None else Captions.of([])
    return replace(
        dataset,
        train=none,
        heldout=none,
        image_shape=shape,
        train_captions=captions,
        heldout_captions=captions,
    )


def _no_images(shape: tuple[int, ...]) -> ArraySource:
    return ArraySource(np.empty((0, *shape), np.uint8), np.empty(0, np.int32))
