"""A run's record of its data: changes are named, and sampling needs no items."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import ArraySource, Dataset, Record, Split, kept_dataset, load_dataset
from diffusion_jax.data.levels import Levels
from diffusion_jax.data.record import KINDS
from diffusion_jax.data.sets.points import Points
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.tokens import Tokens
from tests.runs import captioned_dataset, random_dataset


def folder_of(path: Path, **counts: int) -> Path:
    """A folder with so many pictures of each class."""
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, len(name), 0)).save(path / name / f"{i}.png")
    return path


def record_of(path: Path) -> Record:
    return Record.of(load_dataset("folder", data_dir=str(path), image_size=8))


def of_tokens(*pieces: str) -> Dataset:
    """Texts of one token each, of a vocabulary."""
    kind = Tokens((1,), pieces)
    split = Split(ArraySource(np.zeros((5, 1), np.int32), np.zeros(5, np.int32)))
    return Dataset("texts", kind, {"train": split, "heldout": split})


def of_sounds() -> Dataset:
    """Noise at a rate."""
    items = np.random.default_rng(0).integers(-99, 99, (5, 8, 2), np.int16)
    split = Split(ArraySource(items, np.zeros(5, np.int32)))
    return Dataset("sounds", Sound((8, 2), 8000), {"train": split, "heldout": split})


SETS = [
    *(random_dataset(), captioned_dataset(), load_dataset("swan")),
    *(load_dataset("hmm", length=8), load_dataset("digits_tokens")),
    of_sounds(),
    of_tokens("a", "\udcff", "\n", "\U0001f98a"),
]


@pytest.mark.parametrize("dataset", SETS)
def test_it_comes_back_from_json_and_stands_for_the_data(dataset: Dataset) -> None:
    record = Record.of(dataset)
    again = Record.read(json.loads(json.dumps(dataclasses.asdict(record))))
    assert again == record
    assert not record.changes(again)
    loads = []
    kept = kept_dataset(again, lambda: loads.append(1) or dataset)
    assert (kept.name, kept.kind, kept.class_names) == (
        *(dataset.name, dataset.kind, dataset.class_names),
    )
    assert (kept.captioned, kept.fingerprint) == (dataset.captioned, dataset.fingerprint)
    assert not loads
    np.testing.assert_array_equal(kept.arrays("heldout", 3)[0], dataset.arrays("heldout", 3)[0])
    assert set(kept.splits) == {"train", "heldout"}
    assert len(loads) == 1


def test_every_kind_is_known() -> None:
    assert {"images", Points.noun, Sound.noun, Tokens.noun, Levels.noun} == set(KINDS)


@pytest.mark.parametrize("saved", [{}, [], {"noun": "words"}, None])
def test_what_is_no_record_is_refused(saved: object) -> None:
    with pytest.raises((KeyError, TypeError)):
        Record.read(saved)
    whole = dataclasses.asdict(Record.of(random_dataset()))
    with pytest.raises(KeyError):
        Record.read({**whole, "noun": "words"})


def test_a_copy_has_the_fingerprint_of_the_folder(tmp_path: Path) -> None:
    """Also one with other times, in memory or not; other contents have another."""
    first = record_of(folder_of(tmp_path / "a", cat=20, dog=20))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    for path in (tmp_path / "b").rglob("*.png"):
        os.utime(path, (1, 1))
    assert record_of(tmp_path / "b") == first
    on_disk = load_dataset("folder", data_dir=str(tmp_path / "b"), image_size=8, memory=False)
    assert Record.of(on_disk) == first
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "b/cat/3.png")
    said = "as many images as before, with other contents or names"
    assert first.changes(record_of(tmp_path / "b")) == [said]


@pytest.mark.parametrize(
    ("now", "says", "fits"),
    [
        ({"cat": 20, "dog": 20, "eel": 20}, ["new: class 'eel'", "train images ("], False),
        ({"cat": 20}, ["gone: class 'dog'", "train images (", "heldout images ("], False),
        ({"cat": 20, "hound": 20}, ["new: class 'hound'", "gone: class 'dog'"], True),
        ({"cat": 20, "dog": 70}, [" train images (", " before)"], True),
        (
            dict.fromkeys("abcdefgh", 9),
            ["new: classes 'a', 'b', 'c', 'd', 'e', ...", "gone"],
            False,
        ),
    ],
)
def test_changes_are_named(tmp_path: Path, now: dict, says: list[str], fits: bool) -> None:
    before = record_of(folder_of(tmp_path / "a", cat=20, dog=20))
    found = record_of(folder_of(tmp_path / "b", **now))
    said = "; ".join(before.changes(found))
    assert all(part in said for part in says), said
    assert before.fits(found) == fits


def test_other_shapes_and_captions_are_named() -> None:
    noise, larger = Record.of(random_dataset()), Record.of(random_dataset((16, 16, 3)))
    assert noise.changes(larger)[0] == "images of 16x16x3 (images of 8x8x1 before)"
    assert not noise.fits(larger)
    texts, none = (Record.of(captioned_dataset(captions)) for captions in (True, False))
    assert texts.changes(none) == ["gone: captions"]
    assert none.changes(texts) == ["new: captions"]
    assert texts.fits(none)


def test_another_vocabulary_needs_another_network() -> None:
    before, now = (Record.of(of_tokens("a", last)) for last in "bc")
    assert before.changes(now)[0] == "texts of 1 characters with other pieces"
    assert not before.fits(now)


def test_records_from_before_there_were_further_fields_are_read() -> None:
    saved = dataclasses.asdict(Record.of(random_dataset()))
    del saved["further"]
    assert Record.read(saved) == Record.of(random_dataset())
