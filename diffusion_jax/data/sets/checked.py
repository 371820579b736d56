"""Checks and splits of images, shared by all readers of users' own data sets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from diffusion_jax.data.dataset import Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Look
from diffusion_jax.data.sets.folder_files import some
from diffusion_jax.data.sources import draw
from diffusion_jax.system.progress import tracked
from diffusion_jax.system.texts import shown

N = TypeVar("N")
Found = TypeVar("Found")


def look_at_all(
    names: Sequence[N], look: Callable[[N], Found], threads: int, noun: str = "images"
) -> tuple[dict[N, Found], dict[N, str]]:
    """Result of `look` for each file, and the reasons why others cannot be read.

    For an unreadable file `look` raises a DataError, as `open_picture` does.
    """

    def found(name: N) -> tuple[Found | None, str]:
        try:
            return look(name), ""
        except DataError as error:
            return None, str(error).rpartition(" cannot be read: ")[2]

    with ThreadPoolExecutor(threads) as pool:
        each = tracked(pool.map(found, names), f"reading {noun}", len(names))
        all_found = list(zip(names, each, strict=True))
    looks = {name: one for name, (one, _) in all_found if one is not None}
    return looks, {name: why for name, (one, why) in all_found if one is None}


def common_shape(looks: Iterable[Look], options: Options) -> tuple[int, ...]:
    """The shape [H, W, C] of all images when read; C is 1 if all of them are grey.

    Raises:
        DataError: they differ in size, and `image_size` is 0.
    """
    looks, size = list(looks), options.image_size
    shapes = sorted({look[:2] for look in looks})
    if not size and len(shapes) > 1:
        raise DataError(
            "data.image_size=0 keeps images as stored, but these have heights and widths "
            f"from {shapes[0]} to {shapes[-1]}; give the side in pixels to resize and crop to."
        )
    channels = options.channels or (1 if all(look.grey for look in looks) else 3)
    return *((size, size) if size else shapes[0]), channels


def held_out(names: Sequence[str], fraction: float) -> np.ndarray:
    """Whether each name is held out, bool [N]: by a hash of it, independent of other names.

    If `fraction` is above 0, at least the name with the lowest hash is held out.
    """
    draws = np.array([draw(name) for name in names])
    bar = max(fraction, np.nextafter(draws.min(), 1)) if fraction and len(names) else 0.0
    return draws < bar


def check_sizes(train: int, heldout: int, options: Options, noun: str = "images") -> None:
    """Raises a DataError if too few items are left to train on or to hold out."""
    if not train or (not heldout and options.heldout_fraction):
        raise DataError(
            f"data.dir='{shown(options.data_dir)}' leaves {train} {noun} to train on and "
            f"{heldout} held out (data.heldout_fraction={options.heldout_fraction}); neither "
            "may be 0."
        )


class Slice(NamedTuple):
    """Consecutive items of a split."""

    split: str
    start: int
    stop: int


def check_overlap(
    options: Options, train: Sequence[Slice], heldout: Sequence[Slice]
) -> tuple[str, ...]:
    """A note on items that are in both splits; a DataError if these are all held-out items."""
    shared = sum(
        max(0, min(one.stop, other.stop) - max(one.start, other.start))
        for one in train
        for other in heldout
        if one.split == other.split
    )
    held = sum(part.stop - part.start for part in heldout)
    if held and shared >= held:
        raise trained_on(options)
    asked = f"data.heldout_split='{options.heldout_split}'"
    note = f"{shared:,} of the {held:,} items of {asked} are trained on, too"
    return (note,) if shared else ()


def trained_on(options: Options) -> DataError:
    """The error if nothing is held out."""
    return DataError(
        f"data.heldout_split='{options.heldout_split}' is all trained on, as part of "
        f"data.train_split='{options.train_split}'; hold out another split, or a slice, such as "
        "data.train_split=train[:90%] with data.heldout_split=train[90%:]."
    )


def on_skipped(skipped: Mapping[str, str], noun: str = "files") -> list[str]:
    """A note on unreadable images, from their names and the reasons."""
    few = [f"{shown(name)} ({why})" for name, why in skipped.items()]
    return [f"skipped {len(few)} unreadable {noun}: {some(few)}"] if few else []
