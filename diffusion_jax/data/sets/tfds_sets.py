"""Data sets from TFDS builders: the project's own, and all of TFDS."""

import contextlib
import dataclasses
import difflib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from diffusion_jax.data.dataset import Dataset, Options, Split, empty_dataset
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images
from diffusion_jax.data.sets.checked import Slice, check_overlap, trained_on
from diffusion_jax.data.sets.digits import Digits, Grey
from diffusion_jax.data.sets.emoji import Emoji, EmojiConfig
from diffusion_jax.data.sets.fashion_mnist import DEBIAN_DIR, FashionMnist, IdxConfig, idx_files
from diffusion_jax.data.sets.tfds_captions import find_captions, read_captions
from diffusion_jax.data.sets.tfds_texts import load_tfds_texts
from diffusion_jax.data.sources import RecordSource, content_hash
from diffusion_jax.system.files import in_store, path_of
from diffusion_jax.system.runtime import cache_dir, unwritable

OWN_NAMES = "digits", "fashion_mnist", "emoji"


def load_tfds(options: Options, others: Sequence[str] = ()) -> Dataset:
    """Prepares a TFDS set on first use and opens two splits; `others` are names not in TFDS.

    A set without images is one of texts (`load_tfds_texts`).

    Raises:
        DataError: for unknown names and splits, and sets that cannot be prepared or have neither
            images nor texts.
    """
    name, size = options.name, options.image_size
    asked = {"train": options.train_split, "heldout": options.heldout_split}
    with _quiet():
        builder = _builder(options, others)
        ready = builder.is_prepared()
        if not (ready or options.data_dir) and unwritable(Path(builder.data_path.parent)):
            own = dataclasses.replace(options, data_dir=str(cache_dir() / "tensorflow_datasets"))
            builder = _builder(own, others)
            ready = builder.is_prepared()
    if not ready:
        _prepare(builder, name, options.manual_dir)
    with _quiet():
        if path := _text_path(builder, options):
            records = {
                key: _records(builder, name, f"{key}_split", split) for key, split in asked.items()
            }
            parts = (_parts(builder.info.splits, split) for split in asked.values())
            return load_tfds_texts(options, builder, records, path, check_overlap(options, *parts))
        class_names = _classes(builder, name, size)
        path = find_captions(builder.info.features, name, options.caption_key)
        splits = {}
        for key, split in asked.items():
            records = _records(builder, name, f"{key}_split", split)
            captions = read_captions(builder, split, path, name) if path else None
            splits[key] = Split(RecordSource(records, size, bool(class_names)), captions)
        notes = check_overlap(options, *(_parts(builder.info.splits, s) for s in asked.values()))
        # With its first image TFDS recommends another decoder.
        kind = Images(splits["train"].gather(np.arange(1))[0].shape[1:])
    info = builder.info
    sizes = [(s.name, s.num_examples, s.num_bytes) for _, s in sorted(info.splits.items())]
    identity = repr((info.full_name, sizes, *asked.values()))
    return Dataset(name, kind, splits, class_names, (), content_hash(identity, size), notes)


def describe_tfds(options: Options, others: Sequence[str] = ()) -> Dataset | None:
    """The set without its images, with empty captions if it has any.

    None if the set is prepared or can be made in seconds, and for sets of texts, whose vocabulary
    is known from the texts only. Nothing is prepared or downloaded.

    Raises:
        DataError: for unknown names, and sets without images and texts.
    """
    name, size = options.name, options.image_size
    with _quiet():
        builder = _builder(options, others)
        ready = isinstance(builder, Grey) or builder.is_prepared()
        if ready or _text_path(builder, options):
            return None
        class_names = _classes(builder, name, size)
        height, width, channels = builder.info.features["image"].shape
    kind = Images((*((size, size) if size else (height, width)), channels or 3))
    captioned = find_captions(builder.info.features, name, options.caption_key)
    return empty_dataset(name, kind, class_names, captioned=bool(captioned))


def _builder(options: Options, others: Sequence[str]) -> Any:
    if options.train_split == options.heldout_split:
        raise trained_on(options)  # before anything is downloaded
    name, manual_dir = options.name, options.manual_dir
    directory = os.path.expanduser(options.data_dir) or None
    for key, given in (("dir", directory), ("manual_dir", manual_dir)):
        if given and in_store(path_of(given)):
            raise DataError(
                f"data.{key}='{given}': data.name='{name}' needs a folder on a disk; object "
                "stores hold data.name='folder'."
            )
    if name == "digits":
        return Digits(data_dir=directory)
    if name == "emoji":
        return Emoji(config=EmojiConfig.of(manual_dir, options.image_size), data_dir=directory)
    if name == "fashion_mnist":
        folder = path_of(manual_dir) if manual_dir else DEBIAN_DIR
        missing = [path.name for path in idx_files(folder) if not path.is_file()]
        if not missing:
            return FashionMnist(config=IdxConfig.of(folder), data_dir=directory)
        if manual_dir:
            raise DataError(f"data.manual_dir='{manual_dir}' lacks {', '.join(missing)}.")
    try:
        return tfds.builder(name, data_dir=directory)
    except tfds.core.registered.DatasetNotFoundError:
        own = *OWN_NAMES, *others
        known = [*own, *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(name.split("/")[0].split(":")[0], known, 1, cutoff=0.0)
        raise DataError(
            f"data.name='{name}' is neither one of {', '.join(own)} nor a set of TFDS; "
            f"the nearest match is '{near[0]}'."
        ) from None
    except (ValueError, AssertionError) as error:
        reason = " ".join(str(error).split()).rpartition('": ')[2]
        raise DataError(
            f"data.name='{name}' is not a `set[/config][:version]` of TFDS: {reason[:300]}"
        ) from error
    except ImportError as error:
        raise _not_prepared(name, error) from error


def _prepare(builder: Any, name: str, manual_dir: str) -> None:
    """Downloads a set and writes it for random access; shows progress unless it is built in."""
    config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    own = isinstance(builder, Grey | Emoji)
    if not own:
        _hide_accelerators()
    try:
        with _quiet() if own else contextlib.nullcontext():
            builder.download_and_prepare(file_format="array_record", download_config=config)
    except DataError:
        raise
    except Exception as error:
        if not builder.is_prepared():  # otherwise another process has prepared it
            raise _not_prepared(name, error) from error


def _not_prepared(name: str, error: Exception) -> DataError:
    """The error if TFDS cannot build a set: the reason, and a remedy."""
    remedy = ""
    if isinstance(error, ImportError):
        remedy = "; most sets need `pip install tensorflow-cpu importlib_resources` to be prepared"
    if name == "fashion_mnist":
        remedy += (
            f"; the Debian package dataset-fashion-mnist puts its files into {DEBIAN_DIR}, or name "
            "a folder that holds them in data.manual_dir"
        )
    reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return DataError(f"data.name='{name}': TFDS could not prepare it ({reason}){remedy}.")


def _hide_accelerators() -> None:
    """Keeps TensorFlow, which most TFDS builders import, from using the accelerators."""
    # Fails once TensorFlow has started a device; then it is too late.
    with contextlib.suppress(ImportError, RuntimeError):
        import tensorflow as tf

        for kind in ("GPU", "TPU"):
            tf.config.set_visible_devices([], kind)


def _classes(builder: Any, name: str, image_size: int) -> tuple[str, ...]:
    """The names of the classes, if there are any, after checking the images."""
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise DataError(
            f"data.name='{name}' has no feature `image` of 8-bit pixels, only {sorted(features)}."
        )
    if not image_size and None in image.shape:
        raise DataError(
            f"data.image_size=0 keeps images as stored, but those of data.name='{name}' differ "
            "in size; give the side in pixels to resize and crop to."
        )
    return tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()


def _text_path(builder: Any, options: Options) -> str:
    """The path of the texts of a set without images; '' for others."""
    features = dict(builder.info.features.items())
    return "" if "image" in features else find_captions(features, options.name, options.caption_key)


def _records(builder: Any, name: str, key: str, split: str) -> Any:
    """Opens one split for random access."""
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError):
        allowed = ", ".join(sorted(builder.info.splits))
        raise DataError(
            f"data.{key}='{split}' is not a split of data.name='{name}', which has {allowed}."
        ) from None
    if not count:
        raise DataError(f"data.{key}='{split}' of data.name='{name}' holds no items.")
    try:
        return builder.as_data_source(split)
    except NotImplementedError as error:
        raise DataError(
            f"data.dir: {builder.data_path} holds the set in a format without random access "
            f"({builder.info.file_format.value}); give another folder to prepare it anew."
        ) from error


def _parts(known: Any, split: str) -> list[Slice]:
    """The slices of known splits that make up a split."""
    absolute = tfds.core.ReadInstruction.from_spec(split).to_absolute(known)
    return [
        Slice(p.splitname, p.from_ or 0, p.to or known[p.splitname].num_examples) for p in absolute
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context: hides what TFDS prints about sets that are prepared, or made in seconds."""
    logger, nowhere = logging.getLogger("absl"), io.StringIO()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logger.setLevel(level)
