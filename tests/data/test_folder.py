"""Image folders as users have them: links, splits, captions, names, runs inside."""

import io
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from diffusion_jax.data import DataError, load_dataset
from diffusion_jax.data.images import suffixes


def fill(folder, number=6, first=0, suffix=".png", mode="RGB"):
    """Pictures whose red counts up."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        Image.new("RGB", (8, 8), (first + i, 90, 0)).convert(mode).save(folder / f"{i}{suffix}")


def load(folder, **settings):
    return load_dataset("folder", data_dir=str(folder), memory=False, **settings)


def names_of(dataset, split):
    return set(dataset.splits[split].source.pictures.names)


def sizes(dataset):
    return [len(dataset.splits[split]) for split in ("train", "heldout")]


def captions(dataset):
    """All texts of each image, by its path."""
    return {
        name: split.captions.of_image(row)
        for split in dataset.splits.values()
        for row, name in enumerate(split.source.pictures.names)
    }


# Links


def test_linked_class_folders_are_followed(tmp_path):
    fill(tmp_path / "pool" / "cat")
    fill(tmp_path / "pool" / "dog", first=100)
    data = tmp_path / "data"
    data.mkdir()
    (data / "cat").symlink_to(tmp_path / "pool" / "cat")
    (data / "dog").symlink_to("../pool/dog")
    dataset = load(data)
    assert (dataset.class_names, sum(sizes(dataset))) == (("cat", "dog"), 12)
    items, labels = dataset.arrays("train")
    np.testing.assert_array_equal(items[:, 0, 0, 0] >= 100, labels)
    assert dataset.notes == ()


def test_links_in_a_circle_and_second_names_are_noticed(tmp_path):
    fill(tmp_path / "cat")
    fill(tmp_path / "dog")
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "an_alias").symlink_to("dog")
    dataset = load(tmp_path)
    assert (dataset.class_names, sum(sizes(dataset))) == (("cat", "dog"), 12)
    (note,) = dataset.notes
    assert "an_alias (which is dog), cat/up (which is the whole)" in note


# Splits


@pytest.mark.parametrize(
    ("train", "heldout"),
    [("train", "val"), ("Train", "validation"), ("TRAINING", "dev"), ("train", "Test")],
)
def test_usual_names_of_splits_are_splits(tmp_path, train, heldout):
    for split, number in ((train, 5), (heldout, 3)):
        fill(tmp_path / split / "cat", number)
        fill(tmp_path / split / "dog", number)
    dataset = load(tmp_path)
    assert (sizes(dataset), dataset.class_names) == ([10, 6], ("cat", "dog"))
    (note,) = dataset.notes
    assert f"trains on the sub-folder '{train}', and holds out '{heldout}'" in note


def test_of_three_splits_the_third_is_left_alone_and_named(tmp_path):
    for split in ("train", "val", "test"):
        fill(tmp_path / split, 4)
    dataset = load(tmp_path)
    assert sizes(dataset) == [4, 4]
    assert names_of(dataset, "heldout") == {f"test/{i}.png" for i in range(4)}
    assert dataset.notes[-1] == "neither trained on nor held out: val (4 images)"
    other = load(tmp_path, heldout_split="val")
    assert names_of(other, "heldout") == {f"val/{i}.png" for i in range(4)}


def test_train_alone_is_split_by_a_share(tmp_path):
    fill(tmp_path / "train" / "cat", 20)
    fill(tmp_path / "train" / "dog", 20)
    dataset = load(tmp_path, heldout_fraction=0.3)
    assert dataset.class_names == ("cat", "dog")
    assert sum(sizes(dataset)) == 40
    assert len(dataset.splits["heldout"]) > 1
    assert "holds out a share of it (data.heldout_fraction=0.3)" in dataset.notes[0]
    fill(tmp_path / "plane")
    assert load(tmp_path).class_names == ("plane", "train")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heldout_split": "vall"}, r"heldout_split='vall' is not .* did you mean 'val'\?"),
        ({"train_split": "training"}, r"train_split='training' is not a sub-folder"),
        ({"train_split": "val", "heldout_split": "val"}, "is what data.train_split trains on"),
        ({"heldout_split": "train"}, "heldout_split='train' is what data.train_split trains on"),
    ],
)
def test_splits_that_are_not_there_or_are_one_are_refused(tmp_path, settings, words):
    fill(tmp_path / "train")
    fill(tmp_path / "val")
    with pytest.raises(DataError, match=words):
        load(tmp_path, **settings)


def test_splits_below_classes_or_below_a_single_folder_are_refused(tmp_path):
    for folder in ("set/train", "set/val"):
        fill(tmp_path / folder)
    with pytest.raises(DataError, match=r"splits train, val below 'set'; give data\.dir='.*/set'"):
        load(tmp_path)
    fill(tmp_path / "other" / "train")
    with pytest.raises(DataError, match="splits stand above classes"):
        load(tmp_path)


def test_held_out_files_that_are_trained_on_are_refused_or_said(tmp_path):
    fill(tmp_path / "train")
    (tmp_path / "test").mkdir()
    for i in range(3):
        (tmp_path / "test" / f"{i}.png").symlink_to(f"../train/{i}.png")
    with pytest.raises(DataError, match="all 3 held-out images are files that are trained on"):
        load(tmp_path)
    fill(tmp_path / "test" / "more", 1)
    (tmp_path / "test" / "more" / "0.png").rename(tmp_path / "test" / "new.png")
    assert "3 of 4 held-out images are files that are trained on too" in load(tmp_path).notes[-1]
    (tmp_path / "val").symlink_to("train")
    with pytest.raises(DataError, match=r"heldout_split='val' is not .*val \(which is train\)"):
        load(tmp_path, heldout_split="val")


# Classes


def test_folders_that_are_no_classes_are_said(tmp_path):
    fill(tmp_path / "animals" / "cat")
    fill(tmp_path / "animals" / "dog")
    fill(tmp_path / "__MACOSX" / "animals")
    (tmp_path / "empty").mkdir()
    (tmp_path / "Thumbs.db").touch()
    dataset = load(tmp_path)
    assert dataset.class_names == ("animals",)
    assert dataset.notes[0] == "no image is in the sub-folders empty"
    assert f"data.dir='{tmp_path}/animals' is of cat, dog" in dataset.notes[1]
    fill(tmp_path / "things" / "car")
    assert "2 sub-folders are the classes, and those in them are not" in load(tmp_path).notes[1]


def test_what_runs_leave_is_no_data(tmp_path):
    fill(tmp_path / "cat")
    fill(tmp_path / "dog")
    for run in (tmp_path / "runs" / "digits", tmp_path):
        (run / "checkpoints").mkdir(parents=True)
        fill(run / "samples" / "images")
        (run / "config.json").write_text("{}")
        Image.new("RGB", (3, 3)).save(run / "curves.png")
    dataset = load(tmp_path)
    assert (dataset.class_names, sum(sizes(dataset))) == (("cat", "dog"), 12)
    assert "no data and left out, those in it, runs/digits" in dataset.notes[0]
    with pytest.raises(DataError, match="holds no readable image: the samples of runs are no data"):
        load(tmp_path / "runs")
    assert sum(sizes(load(tmp_path / "samples" / "images"))) == 6  # asked for by name


def test_what_is_no_folder_of_images_is_one_sentence(tmp_path):
    fill(tmp_path, 1)
    with pytest.raises(DataError, match="is not a folder, but a file: give the folder that holds"):
        load(tmp_path / "0.png")
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "IMG_1.HEIC").touch()
    with pytest.raises(
        DataError, match=r"no readable image: its files end in \.heic \(1\)\. Files"
    ):
        load(tmp_path / "phone")


def test_a_home_is_found(tmp_path, monkeypatch):
    fill(tmp_path / "pictures")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sum(sizes(load("~/pictures"))) == 6


# Captions


def test_texts_beside_images_are_captions(tmp_path):
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 1, suffix=".JPG")
    for name, text in {
        "a/0.txt": "eins\r\n\r\n zwei \r\neins".encode("utf-16"),
        "a/1.TXT": b"\xef\xbb\xbfone",
        "a/2.caption": "día".encode(),
        "b/0.JPG.txt": b"last",
    }.items():
        (tmp_path / name).write_bytes(text)
    dataset = load(tmp_path)
    assert captions(dataset) == {
        "a/0.png": ("eins", "zwei"),
        "a/1.png": ("one",),
        "a/2.png": ("día",),
        "b/0.JPG": ("last",),
    }
    assert dataset.num_classes == 0
    assert "sub-folders are no classes; data.caption_key=none reads no captions" in dataset.notes[0]
    assert load(tmp_path, caption_key="none").class_names == ("a", "b")
    assert load(tmp_path, caption_key="none").splits["train"].captions is None


def test_texts_beside_some_images_only_are_refused(tmp_path):
    fill(tmp_path, 4)
    for i, text in enumerate(("one", "two", " ")):
        (tmp_path / f"{i}.txt").write_text(text)
    with pytest.raises(DataError, match=r"or an empty one, beside 2\.png \(2 images have none\)"):
        load(tmp_path)
    (tmp_path / "0.txt").write_bytes("Bär".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"0\.txt cannot be read: it is not text in UTF-8 at byte 1"
    ):
        load(tmp_path)
    assert sum(sizes(load(tmp_path, caption_key="none"))) == 4


def table(separator):
    rows = [("file_name", "text"), ("0.png", f'"a{separator}b"'), ("1.png", "ü"), ("1.png", "u")]
    return "\r\n".join(separator.join(row) for row in rows)


@pytest.mark.parametrize(
    ("file", "content", "comma"),
    [
        ("metadata.csv", table(",").encode(), ","),
        ("metadata.csv", table(";").encode("utf-8-sig"), ";"),
        ("metadata.tsv", table("\t").encode("utf-16"), "\t"),
        ("metadata.parquet", None, ","),
    ],
)
def test_tables_hold_captions(tmp_path, file, content, comma):
    fill(tmp_path, 2)
    if content is None:
        columns = {"file_name": ["0.png", "1.png"], "caption": [["a,b"], ["ü", "u"]]}
        made = io.BytesIO()
        parquet.write_table(pa.table(columns), made)
        content = made.getvalue()
    (tmp_path / file).write_bytes(content)
    found = load(tmp_path)
    assert captions(found) == {"0.png": (f"a{comma}b",), "1.png": ("ü", "u")}
    assert found.notes == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file_name,text\n0.png,a, b\n", "line 2 has more columns .* stands in double quotes"),
        ("file_name,label\n0.png,3\n", r"line 2 has none of the keys text.*only file_name, label;"),
        ("file_name,text\n0.png,\n", "line 2: 'text' must be a text"),
        ("file_name,text\n0.png,a\n", r"metadata\.csv has no line for 1\.png"),
        ("file_name,text\n0.png,a\n..\\1.png,b\n", "line 3: .* must lie below the folder"),
    ],
)
def test_bad_tables_are_named_by_line(tmp_path, content, words):
    fill(tmp_path, 2)
    (tmp_path / "metadata.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        load(tmp_path)


def test_files_that_are_no_images_are_named(tmp_path):
    fill(tmp_path, 2)
    for name in ("clip.mov", "CLIP.MOV", "notes.txt", ".DS_Store"):
        (tmp_path / name).write_text("a film, say")
    assert "2 files are no images: CLIP.MOV, clip.mov" in load(tmp_path).notes
    (tmp_path / "CLIP.MOV").unlink()
    assert "1 file is no image: clip.mov" in load(tmp_path).notes


def test_texts_that_are_not_used_are_said(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "README.txt").touch()
    assert load(tmp_path).notes == ()
    (tmp_path / "metadata.csv").write_text("id,text\n0,a\n1,b\n")
    (tmp_path / "captions.json").write_text("{}")
    (note,) = load(tmp_path).notes
    assert note.startswith(
        "2 files of texts are not used: captions.json, metadata.csv; captions ar"
    )
    lines = [json.dumps({"file_name": f"{i}.png", "text": "a"}) for i in range(2)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert load(tmp_path).splits["train"].captions.texts == ("a",)


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png")),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
        ("a/b.png", "a\\b.png"),
        ("a/b.png", ".\\a\\b.png"),
        ("a/b.png", "./A/B.PNG"),
        ("a\\b.png", "a\\b.png"),
    ],
)
def test_names_are_compared_as_file_systems_mean_them(tmp_path, stored, written):
    fill(tmp_path, 2)
    (tmp_path / stored).parent.mkdir(exist_ok=True)
    (tmp_path / "0.png").rename(tmp_path / stored)
    lines = [{"file_name": written, "text": "this"}, {"file_name": "1.png", "text": "that"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert captions(load(tmp_path)) == {stored: ("this",), "1.png": ("that",)}


def test_a_name_that_several_files_have_is_not_guessed(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "0.png").rename(tmp_path / "a.png")
    (tmp_path / "1.png").rename(tmp_path / "A.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.PNG", "text": "a"}')
    with pytest.raises(DataError, match=r"names a\.PNG, which is not there"):
        load(tmp_path)


# Names that are not UTF-8


def test_names_that_are_not_utf_8_are_read_and_can_be_printed(tmp_path):
    fill(tmp_path / "a")
    fill(tmp_path / "b")
    os.rename(tmp_path / "a", os.fsencode(tmp_path) + b"/caf\xe9")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b/\xff.png")).write_text("no picture")
    dataset = load(tmp_path)
    assert dataset.class_names == ("b", r"caf\udce9")
    assert dataset.skipped == (r"b/\udcff.png",)
    "".join((*dataset.notes, *dataset.class_names)).encode()
    assert (
        sum(sizes(dataset)) == len(names_of(dataset, "train") | names_of(dataset, "heldout")) == 12
    )
    assert len(dataset.fingerprint) == 16


# Grey


def test_a_folder_of_grey_pictures_has_one_channel(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    grey = Image.fromarray(rows)
    wide = Image.fromarray(rows.astype(np.uint16) * 257)
    for name, picture in {
        **{"l.png": grey, "l.jpg": grey, "rgb.png": grey.convert("RGB"), "wide.png": wide},
        **{"rgb.jpg": grey.convert("RGB"), "alpha.png": grey.convert("LA"), "wide.pgm": wide},
        "bits.png": grey.convert("1"),
    }.items():
        picture.save(tmp_path / name)
    dataset = load(tmp_path, heldout_fraction=0)
    assert dataset.kind.shape == (16, 16, 1)
    items = dict(zip(sorted(os.listdir(tmp_path)), dataset.arrays("train")[0][..., 0], strict=True))
    for name in ("l.png", "rgb.png", "wide.png", "alpha.png", "wide.pgm"):
        np.testing.assert_array_equal(items[name], rows)
    assert load(tmp_path, channels=3).kind.shape == (16, 16, 3)
    one = np.stack([rows] * 3, axis=-1)
    one[5, 11, 2] ^= 8
    Image.fromarray(one).save(tmp_path / "colour.png")
    assert load(tmp_path).kind.shape == (16, 16, 3)
    # A run that was trained on one channel goes on with one.
    assert load(tmp_path, channels=1).arrays("train")[0].shape[1:] == (16, 16, 1)


# Formats


def test_all_pictures_that_pillow_reads_are_found(tmp_path):
    found = suffixes()
    assert {".avif", ".jfif", ".jpe", ".tga", ".ppm", ".jp2", ".webp", ".gif", ".tiff"} <= found
    assert not found & {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".wmf", ".h5", ".txt", ".json"}
    for suffix in (".avif", ".jfif", ".tga", ".ppm", ".JP2", ".PnG"):
        fill(tmp_path / suffix[1:], 1, 9, suffix)
    assert sum(sizes(load(tmp_path))) == 6
