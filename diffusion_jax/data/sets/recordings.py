"""Windows of recordings: of a folder of a user's own, and shared by the sets of packages.

Recordings are decoded, resampled and brought to one level once; the result is cached on disk and
read through a memory map.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.checked import check_sizes, held_out, look_at_all, on_skipped
from diffusion_jax.data.sets.folder_files import list_files
from diffusion_jax.data.sets.folder_layout import arranged
from diffusion_jax.data.sets.windows import SoundWindows, cells_of
from diffusion_jax.data.sound import Sound, of_channels
from diffusion_jax.data.sound_files import Preparation, prepare
from diffusion_jax.data.sound_reading import SUFFIXES, Look, look_at
from diffusion_jax.data.sources import content_hash
from diffusion_jax.system.cache import cached
from diffusion_jax.system.files import path_of, readers, stamps
from diffusion_jax.system.progress import tracked
from diffusion_jax.system.runtime import cache_dir
from diffusion_jax.system.texts import shown

LENGTH = 16_384
RATE = 16_000  # Hz, of sets of packages
SPLITS = "train", "heldout"


class Recording(NamedTuple):
    """A recording of a set."""

    name: str  # its path, relative to the root of the set
    label: int = 0
    texts: tuple[str, ...] = ()
    group: str = ""  # recordings of one group are held out together; '' is its own


class Prepared(NamedTuple):
    """Prepared recordings, one after another."""

    entries: np.ndarray  # int16 [T, C]
    sizes: np.ndarray  # int64 [N, 2]: samples of each, and those of them that are clipped


def split_recordings(
    recordings: Sequence[Recording], fraction: float
) -> dict[str, list[Recording]]:
    """Recordings by split: `fraction` of the groups is held out, by a hash of their names."""
    groups = sorted({one.group or one.name for one in recordings})
    held = dict(zip(groups, held_out(groups, fraction), strict=True))
    splits: dict[str, list[Recording]] = {key: [] for key in SPLITS}
    for one in recordings:
        splits[SPLITS[int(held[one.group or one.name])]].append(one)
    return splits


def windows_of_recordings(
    options: Options,
    root: Path,
    splits: Mapping[str, Sequence[Recording]],
    cut: str,
    class_names: Sequence[str] = (),
    rate: int = RATE,
    channels: int = 1,
    skipped: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Dataset:
    """The data set of the windows of `length` (0: 16,384) samples of recordings, by split.

    Training windows are at random places, one of each stretch of a recording in an epoch. Held-out
    windows cover the held-out recordings once, side by side. `cut`, `rate` and `channels` hold
    where the options leave them open.

    Raises:
        DataError: a recording cannot be prepared (`prepare`), a split is empty, or `channels` is
            one of pictures.
    """
    if options.channels not in (0, 1):
        raise DataError(
            f"data.channels={options.channels} is for pictures; of sounds 1 mixes the channels, "
            "and 0 leaves them as they are."
        )
    length = options.length or LENGTH
    how = Preparation(
        *(options.rate or rate, options.channels or channels, options.loudness),
        *(options.cut or cut, length),
    )
    every = [one for key in SPLITS for one in splits[key]]
    names = [one.name for one in every]
    stamp = content_hash(names, stamps(root, names), how)
    whole = _prepared(root, names, how, stamp)
    ends = np.cumsum([0, *whole.sizes[:, 0]]).tolist()
    sizes = whole.sizes[:, 0].tolist()
    places = dict(zip(names, zip(ends, sizes, strict=False), strict=True))
    made, said = {}, [*notes, *_on_clipped(whole)]
    for key in SPLITS:
        part = splits[key]
        own = {one.name: places[one.name] for one in part}
        labels = {one.name: one.label for one in part}
        cells, numbers = cells_of(own, labels, length, fixed=key == "heldout")
        texts = [part[number].texts for number in numbers]
        captions = Captions.of(texts) if every[0].texts else None
        made[key] = Split(SoundWindows(whole.entries, cells, length), captions)
        long = sum(size > length for _, size in own.values())
        if captions and long:
            said.append(
                f"{long:,} of {len(part):,} {key} recordings are longer than a window, and each of "
                "their windows has the text of the whole recording"
            )
    check_sizes(len(made["train"]), len(made["heldout"]), options, "sounds")
    sorted_as = [(one.label, one.group) for one in every], len(splits["train"])
    return Dataset(
        *(options.name, Sound((length, whole.entries.shape[1]), how.rate), made),
        class_names=tuple(class_names),
        skipped=tuple(skipped),
        fingerprint=content_hash(stamp, sorted_as),
        notes=tuple(said),
    )


def _prepared(root: Path, names: Sequence[str], how: Preparation, stamp: str) -> Prepared:
    """The prepared recordings, from the cache if they are there."""

    def write(path: Path) -> None:
        with ThreadPoolExecutor(readers(root)) as pool:
            found = pool.map(lambda name: prepare(root / name, how), names)
            sounds = list(tracked(found, "preparing sounds", len(names)))
        clipped = [int(Sound(s.shape, how.rate).clipped(s[None])[0]) for s in sounds]
        with path.open("wb") as file:
            np.save(file, np.array([*zip(map(len, sounds), clipped, strict=True)], np.int64))
            np.save(file, np.concatenate(sounds))

    return cached(cache_dir() / "sounds", stamp, ".npy", _read, write, together=False)


def _read(path: Path) -> Prepared:
    """Two arrays from a file of `np.save`, the second through a memory map."""
    with path.open("rb") as file:
        sizes = np.load(file)
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}[version]
        shape, _, dtype = read(file)
        return Prepared(np.memmap(path, dtype, "r", file.tell(), shape), sizes)


def _on_clipped(whole: Prepared) -> list[str]:
    """A note on samples that are at the ends of 16 bits."""
    counts = whole.sizes[:, 1]
    if not counts.any():
        return []
    return [
        f"{counts.sum():,} samples of {np.count_nonzero(counts):,} recordings are clipped, at the "
        "ends of 16 bits"
    ]


def load_recordings(options: Options) -> Dataset:
    """A folder of recordings, sorted into splits, classes and captions as `load_folder` does.

    Raises:
        DataError: there are no readable recordings, they differ in rate or channels and are to stay
            so, or as `arranged` and `windows_of_recordings`.
    """
    data_dir, root = shown(options.data_dir), path_of(options.data_dir)
    if not options.data_dir or not root.is_dir():
        raise DataError(
            f"data.dir='{data_dir}' is not a folder; data.name='recordings' reads one of "
            f"recordings, files that end in {', '.join(SUFFIXES)}."
        )
    listing = list_files(root)
    names = [n for n in listing.files if PurePosixPath(n).suffix.lower() in SUFFIXES]
    looks, skipped = look_at_all(names, lambda n: look_at(root / n), readers(root), "sounds")
    if not looks:
        why = "; ".join([*on_skipped(skipped, "sounds"), *listing.notes])
        raise DataError(
            f"data.dir='{data_dir}' holds no readable sound{': ' if why else ''}{why}. Files may "
            f"end in {', '.join(SUFFIXES)}."
        )
    found = arranged(root, listing, list(looks), options, "sounds")
    used = {name: looks[name] for name in found.labels}
    rate = options.rate or _common(used, "rate", "{:,} Hz".format, "data.rate=RATE resamples them")
    channels = options.channels or _common(
        used, "channels", of_channels, "data.channels=1 mixes them to mono"
    )
    splits = {
        key: [Recording(n, found.labels[n], found.texts.get(n, ())) for n in found.parts[key]]
        for key in SPLITS
    }
    notes = *listing.notes, *on_skipped(skipped, "sounds"), *found.notes
    return windows_of_recordings(
        *(options, root, splits, "windows", found.class_names, rate, channels),
        *(tuple(map(shown, skipped)), notes),
    )


def _common(looks: Mapping[str, Look], field: str, words: Callable[[int], str], remedy: str) -> int:
    """The rate, or number of channels, of all recordings.

    Raises:
        DataError: naming two that differ.
    """
    by_value: dict[int, list[str]] = {}
    for name, look in sorted(looks.items()):
        by_value.setdefault(getattr(look, field), []).append(name)
    if len(by_value) > 1:
        (one, some_of), (other, rest) = list(by_value.items())[:2]
        raise DataError(
            f"data.{field}=0 keeps sounds as stored, but {shown(some_of[0])} is "
            f"{words(one)} and {shown(rest[0])} {words(other)}; {remedy}."
        )
    return next(iter(by_value))
