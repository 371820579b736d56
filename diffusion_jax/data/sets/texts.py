"""Texts as windows of tokens, and text files of users."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.checked import held_out, look_at_all, on_skipped
from diffusion_jax.data.sets.folder_files import list_files
from diffusion_jax.data.sets.vocabularies import TOKENIZERS
from diffusion_jax.data.sets.windows import TextWindows
from diffusion_jax.data.sources import content_hash
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.system.files import path_of, readers
from diffusion_jax.system.texts import read_text, shown

LENGTH = 256
SUFFIXES = ".txt", ".md"
SPLITS = {"train": "training", "heldout": "held-out"}
PARTS = 10  # held-out parts of a single text, at most
PART = 16  # their least length in windows, if there are several


class Text(NamedTuple):
    """A text of a split."""

    name: str  # identifies it
    text: str
    label: int = 0


def windows_of(
    options: Options,
    texts: Mapping[str, Sequence[Text]],
    class_names: Sequence[str] = (),
    skipped: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Dataset:
    """The data set of the windows of `length` (0: 256) tokens of texts, by split.

    The vocabulary is that of the training texts. Training windows are at random places, one of each
    stretch of a text in an epoch. Held-out windows cover the held-out texts once, side by side; the
    rests at the ends of texts are left out.

    Raises:
        DataError: no text of a split is as long as a window.
    """
    length, said = options.length or LENGTH, list(notes)
    train, heldout = ([text.text for text in texts[key]] for key in SPLITS)
    vocabulary = TOKENIZERS[options.tokenizer](train, heldout, options.vocabulary)
    said += vocabulary.notes
    sources = {}
    for key, which in SPLITS.items():
        tokens = {text.name: vocabulary.encode(text.text) for text in texts[key]}
        sizes = np.array([len(text) for text in tokens.values()], int)
        if len(sizes) and sizes.max() < length:
            raise DataError(
                f"data.length={length} is longer than every {which} text of {_place(options)}: the "
                f"longest has {sizes.max():,} tokens."
            )
        labels = {text.name: text.label for text in texts[key]}
        sources[key] = source = TextWindows.of(tokens, labels, length, fixed=key == "heldout")
        total = int(sizes.sum())
        if key == "heldout" and (rest := total - len(source) * length):
            said.append(
                f"of {total:,} held-out tokens the {rest:,} at the ends of texts that fill no "
                "window are left out"
            )
        elif short := int((sizes < length).sum()):
            said.append(
                f"{short:,} of {len(sizes):,} {which} texts are shorter than a window and left out"
            )
    arrays = (array for source in sources.values() for array in (source.entries, source.cells))
    fingerprint = content_hash(vocabulary.pieces, length, *arrays)
    kind = Tokens((length,), vocabulary.pieces)
    splits = {key: Split(source) for key, source in sources.items()}
    return Dataset(
        *(options.name, kind, splits, tuple(class_names), tuple(skipped), fingerprint, tuple(said))
    )


def _place(options: Options) -> str:
    named = options.data_dir if options.name == "text" else ""
    return f"data.dir='{shown(named)}'" if named else f"data.name='{options.name}'"


def load_text(options: Options) -> Dataset:
    """A text file, or all files below a folder that end in .txt or .md.

    `heldout_fraction` of the files is held out, by a hash of their relative paths. Of a single file
    parts are: it is cut into at most 10 equal stretches, and the end of each is held out.

    Raises:
        DataError: there is no readable text, or as `windows_of`.
    """
    root, fraction = path_of(options.data_dir), options.heldout_fraction
    skipped: dict[str, str] = {}
    notes: list[str] = []
    if not options.data_dir or not root.exists():
        raise DataError(
            f"data.dir='{shown(options.data_dir)}' is neither a file nor a folder; "
            "data.name='text' reads one text file, or a folder of them."
        )
    if root.is_dir():
        listing = list_files(root)
        names = [n for n in listing.files if PurePosixPath(n).suffix.lower() in SUFFIXES]
        found, skipped = look_at_all(names, lambda n: _read(root / n), readers(root), "texts")
        notes += [*listing.notes, *on_skipped(skipped)]
        if others := len(listing.files) - len(names):
            notes.append(f"{others:,} files that do not end in .txt or .md are left out")
        if not found:
            raise DataError(
                f"data.dir='{shown(options.data_dir)}' holds no readable text"
                f"{': ' if notes else ''}{'; '.join(notes)}. Files may end in .txt or .md."
            )
    else:
        found = {root.name: _read(root)}
    if len(found) == 1:
        texts = parted(*next(iter(found.items())), fraction, options.length or LENGTH)
    else:
        held = held_out(list(found), fraction)
        texts = {
            key: [
                Text(*item)
                for item, out in zip(found.items(), held, strict=True)
                if out == (key == "heldout")
            ]
            for key in SPLITS
        }
    if not texts["train"]:
        raise DataError(
            f"data.heldout_fraction={fraction} leaves none of the {len(found)} texts of "
            f"{_place(options)} to train on."
        )
    return windows_of(options, texts, (), tuple(map(shown, skipped)), notes)


def parted(name: str, text: str, fraction: float, length: int) -> dict[str, list[Text]]:
    """One text in splits: the ends of equal stretches of it are held out, `fraction` of it.

    There are as many as leave each `PART` windows of `length` characters, `PARTS` at most.
    """
    num = min(max(int(fraction * len(text) / (PART * length)), 1), PARTS)
    ends = np.linspace(0, len(text), num + 1).astype(int)
    texts: dict[str, list[Text]] = {key: [] for key in SPLITS}
    for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        middle = stop - round(fraction * (stop - start))
        for key, low, high in (("train", start, middle), ("heldout", middle, stop)):
            if low < high:
                texts[key].append(Text(f"{name}:{low}", text[low:high]))
    return texts


def _read(path: Path) -> str:
    """Reads a text file.

    Raises:
        DataError: `FILE cannot be read: why`.
    """
    try:
        text = read_text(path)
        if not text.strip():
            raise ValueError("it is empty" if not text else "it holds blanks only")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{shown(path)} cannot be read: {reason}") from error
    return text
