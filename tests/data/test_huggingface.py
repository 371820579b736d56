"""Sets of Hugging Face's `datasets`: read as folders of pictures are, row by row from the disk."""

import io
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import DataError, Dataset, load_dataset, train_batches
from diffusion_jax.data.dataset import Options
from diffusion_jax.data.images import Encoded, read_image
from diffusion_jax.data.sets import huggingface_columns as columns
from diffusion_jax.data.sets.huggingface_tables import Part

NAMES = ["cat", "dog", "owl"]


@pytest.fixture
def hf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def load(folder: Path | str, **options: Any) -> Dataset:
    return load_dataset("huggingface", data_dir=str(folder), **{"memory": False, **options})


def png(number: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    pixels = np.full((side, side, 3), number, np.uint8)
    pixels[0, 0] = 255, 0, 0
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def table(hf: Any, num: int, first: int = 0, **more: Any) -> Any:
    """Rows with a picture, a class and a caption; `more` are further columns or others."""
    rows = range(first, first + num)
    cells = {
        "image": [{"bytes": png(i), "path": None} for i in rows],
        "label": [i % 3 for i in rows],
        "text": [f"a {NAMES[i % 3]} " for i in rows],
    }
    features = {
        "image": hf.Image(),
        "label": hf.ClassLabel(names=NAMES),
        "text": hf.Value("string"),
    }
    for name, (values, feature) in more.items():
        cells[name], features[name] = values, feature
    return hf.Dataset.from_dict(cells, features=hf.Features(features))


def saved(found: Any, folder: Path) -> Path:
    found.save_to_disk(str(folder))
    return folder


def items(dataset: Dataset, split: str = "train") -> tuple[np.ndarray, np.ndarray, list]:
    part = dataset.splits[split]
    images, labels = part.gather(np.arange(len(part)))
    captions = part.captions
    return images, labels, [captions.of_image(i) for i in range(len(part))] if captions else []


def test_the_forms_in_which_a_set_is_kept(hf: Any, tmp_path: Path) -> None:
    whole = table(hf, 12)
    (tmp_path / "parquet").mkdir()
    for part in range(2):
        shard = whole.shard(2, part, contiguous=True)
        shard.to_parquet(str(tmp_path / "parquet" / f"train-{part}.parquet"))
    first = load(saved(whole, tmp_path / "saved"), heldout_fraction=0.3)
    second = load(tmp_path / "parquet", heldout_fraction=0.3)
    assert first.fingerprint == second.fingerprint
    assert first.class_names == tuple(NAMES)
    assert first.kind.shape == (8, 8, 3)
    sizes = [len(first.splits[split]) for split in ("train", "heldout")]
    assert sum(sizes) == 12
    assert min(sizes) > 0
    seen = []
    for split in ("train", "heldout"):
        for one, other in zip(items(first, split), items(second, split), strict=True):
            np.testing.assert_array_equal(one, other)
        images, labels, texts = items(first, split)
        numbers = images[:, 1, 1, 0].tolist()
        seen += numbers
        assert labels.tolist() == [number % 3 for number in numbers]
        assert texts == [(f"a {NAMES[number % 3]}",) for number in numbers]
    assert sorted(seen) == list(range(12))


def test_an_imagefolder(hf: Any, tmp_path: Path) -> None:
    lines = []
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"number {number}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    found = load(tmp_path, heldout_fraction=0)
    images, _, texts = items(found)
    assert texts == [(f"number {number}",) for number in images[:, 1, 1, 0]]
    assert found.class_names == ()


def test_pictures_are_read_as_those_of_folders(hf: Any, tmp_path: Path) -> None:
    """Turned by EXIF, from 16 bits, on white where they are transparent, grey if all are."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "folder"
    folder.mkdir()
    wide = Image.fromarray(rng.integers(0, 2**16, (9, 12), np.uint16))
    wide.save(folder / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (12, 9), np.uint8)).save(folder / "1.jpg", exif=exif)
    glass = rng.integers(0, 256, (9, 12, 4), np.uint8)
    for number, options in enumerate(({}, {"channels": 1})):
        if number == 0:
            Image.fromarray(glass).save(folder / "2.png")
        files = sorted(folder.iterdir())
        cells = [{"bytes": file.read_bytes(), "path": None} for file in files]
        whole = hf.Dataset.from_dict({"image": cells}, features=hf.Features({"image": hf.Image()}))
        theirs = load_dataset(
            "folder", data_dir=str(folder), heldout_fraction=0.0, image_size=8, **options
        )
        place = saved(whole, tmp_path / str(number))
        ours = load(place, heldout_fraction=0.0, image_size=8, **options)
        assert ours.kind.shape == theirs.kind.shape
        np.testing.assert_array_equal(items(ours)[0], items(theirs)[0])


def test_rows_are_read_from_the_disk_and_in_worker_processes(hf: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), np.uint8)
    cells = []
    for pixels in noise:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="png")
        cells.append({"bytes": file.getvalue(), "path": None})
    whole = hf.Dataset.from_dict({"image": cells}, features=hf.Features({"image": hf.Image()}))
    source = load(saved(whole, tmp_path / "set"), heldout_fraction=0.0).splits["train"].source
    kept = pickle.dumps(source)
    assert len(kept) < 100_000  # of pictures of 1.2 MB
    rows = np.array([70, 3, 3, 99])
    for each in (source, pickle.loads(kept)):
        assert not each.resident
        np.testing.assert_array_equal(each.gather(rows)[0], noise[rows])
    held = load(tmp_path / "set", memory=True).splits["train"].source
    assert held.resident


def test_a_cell_that_is_no_picture_is_left_out_and_named(
    hf: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells: list = [{"bytes": png(i, 64), "path": None} for i in range(6)]
    cells[1]["bytes"] = b"no picture"
    cells[2]["bytes"] = png(2, 64)[:-40]
    cells[3] = None
    whole = table(hf, 6, image=(cells, hf.Image(decode=False)))
    found = load(saved(whole, tmp_path / "set"), heldout_fraction=0)
    assert found.skipped == ("train row 1", "train row 2", "train row 3")
    assert items(found)[0][:, 1, 1, 0].tolist() == [0, 4, 5]
    assert items(found)[1].tolist() == [0, 1, 2]
    assert "train row 1 (it is no picture), train row 2" in caplog.text
    assert "train row 3 (it is empty)" in caplog.text
    cells = [{"bytes": b"no picture", "path": None}]
    with pytest.raises(DataError, match="holds no readable image: skipped 1"):
        load(saved(table(hf, 1, image=(cells, hf.Image(decode=False))), tmp_path / "none"))


@pytest.mark.parametrize(
    ("names", "options", "train", "heldout", "note"),
    [
        ("train test validation", {}, "train", "test", "neither trained on nor held out: valid"),
        ("train validation", {}, "train", "validation", "and holds out 'validation'"),
        ("training Dev", {}, "training", "Dev", "trains on the split 'training'"),
        ("train other", {}, "train", "", "and holds out a share of it"),
        ("test", {}, "test", "", ""),
        ("a b", {"train_split": "b", "heldout_split": "a"}, "b", "a", ""),
        ("a b", {"train_split": "a"}, "a", "", "neither trained on nor held out: b (10 images)"),
    ],
)
def test_splits(
    hf: Any, tmp_path: Path, names: str, options: dict, train: str, heldout: str, note: str
) -> None:
    of = {name: table(hf, 10, 10 * i) for i, name in enumerate(names.split())}
    found = load(saved(hf.DatasetDict(of), tmp_path / "set"), **options)
    starts = {name: 10 * i for i, name in enumerate(of)}
    numbers = {split: set(items(found, split)[0][:, 1, 1, 0].tolist()) for split in found.splits}
    whole = set(range(starts[train], starts[train] + 10))
    if heldout:
        assert numbers["train"] == whole
        assert numbers["heldout"] == set(range(starts[heldout], starts[heldout] + 10))
    else:
        assert numbers["train"] | numbers["heldout"] == whole
        assert not numbers["train"] & numbers["heldout"]
    assert note in "; ".join(found.notes)
    assert bool(note) == bool(found.notes)


def test_slices(hf: Any, tmp_path: Path) -> None:
    place = saved(hf.DatasetDict({"a": table(hf, 10), "b": table(hf, 4, 10)}), tmp_path / "set")
    found = load(place, train_split="a[:50%]+b", heldout_split="a[50%:]")
    assert items(found)[0][:, 1, 1, 0].tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13]
    assert items(found, "heldout")[0][:, 1, 1, 0].tolist() == [5, 6, 7, 8, 9]
    found = load(place, train_split="a[:6]", heldout_split="a[4:]")
    assert "2 of the 6 items of data.heldout_split='a[4:]' are trained on" in found.notes[1]


def test_rows_that_are_added_move_no_others(hf: Any, tmp_path: Path) -> None:
    few, more = (load(saved(table(hf, n), tmp_path / str(n))) for n in (40, 50))
    held = [set(items(each, "heldout")[0][:, 1, 1, 0].tolist()) for each in (few, more)]
    assert held[0] == {number for number in held[1] if number < 40}


def test_the_fingerprint_is_of_what_is_learned(hf: Any, tmp_path: Path) -> None:
    whole = table(hf, 8)
    found = [
        load(saved(each, tmp_path / str(number))).fingerprint
        for number, each in enumerate(
            [
                whole,
                whole.rename_column("image", "img").add_column("x", [0] * 8),
                whole.select([1, 0, *range(2, 8)]),
                table(hf, 8, label=([0] * 8, hf.ClassLabel(names=NAMES))),
                table(hf, 8, text=(["one"] * 8, hf.Value("string"))),
            ]
        )
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_one_of_several_columns_of_pictures(hf: Any, tmp_path: Path) -> None:
    other = [{"bytes": png(100 + i), "path": None} for i in range(6)], hf.Image()
    both = saved(table(hf, 6, depth=other), tmp_path / "both")
    found = load(both, heldout_fraction=0)
    assert items(found)[0][0, 1, 1, 0] == 0
    assert "'image' (data.image_key names another: depth)" in found.notes[0]
    assert items(load(both, heldout_fraction=0, image_key="depth"))[0][0, 1, 1, 0] == 100
    neither = saved(table(hf, 6, depth=other).rename_column("image", "x"), tmp_path / "neither")
    with pytest.raises(DataError, match=r"columns of pictures, x, depth; data\.image_key names"):
        load(neither)
    with pytest.raises(DataError, match="image_key='y' is no column of pictures, which are x, dep"):
        load(neither, image_key="y")
    with pytest.raises(DataError, match="has no column of pictures, only label, text"):
        load(saved(table(hf, 6).remove_columns("image"), tmp_path / "none"))


@pytest.mark.parametrize("plain", [True, False])
def test_pictures_in_tables_without_features(hf: Any, tmp_path: Path, plain: bool) -> None:
    cells = [png(i) if plain else {"bytes": png(i), "path": ""} for i in range(4)]
    whole = hf.Dataset.from_dict({"image": cells})
    images = items(load(saved(whole, tmp_path / "set"), heldout_fraction=0))[0]
    assert images[:, 1, 1, 0].tolist() == [0, 1, 2, 3]


def test_what_is_refused(hf: Any, tmp_path: Path) -> None:
    place = saved(table(hf, 6), tmp_path / "set")
    two = saved(hf.DatasetDict({"a": table(hf, 2), "b": table(hf, 2)}), tmp_path / "two")
    lacks = hf.DatasetDict({"train": table(hf, 2), "test": table(hf, 2).remove_columns("label")})
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.parquet").write_bytes(b"cut")
    for folder, options, message in (
        (place, {"train_split": "trian"}, "train_split='trian' is not a split .* mean 'train'"),
        (place, {"train_split": "train[a:]"}, "nor a slice of one"),
        (place, {"heldout_split": "train[5:]"}, "is all trained on"),
        (place, {"caption_key": "label"}, "'label' is no column of texts, which are text"),
        (place, {"label_key": "image"}, "label_key='image' is no column of class labels"),
        (two, {}, "has the splits a, b; data.train_split names the one to train on"),
        (saved(lacks, tmp_path / "lacks"), {}, "test has no column 'label', which train has"),
        (tmp_path / "cut", {}, "Hugging Face's datasets cannot read that folder"),
        ("owner/set", {}, "it is no folder here, and was not fetched from the Hugging Face hub"),
        ("owner/set:large", {}, "was not fetched from the Hugging Face hub"),
        (tmp_path / "none", {}, "is not a folder, nor a name on the Hugging Face hub"),
        ("", {}, "is not a folder, nor a name on the Hugging Face hub"),
        (tmp_path / "cut" / "a.parquet", {}, "is a file: give the folder that holds it"),
        ("s3://bucket/set", {}, "needs a folder on a disk"),
    ):
        with pytest.raises(DataError, match=message):
            load(folder, **options)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the package datasets: pip install datasets"):
        load(tmp_path)


VALUES = {
    "label": SimpleNamespace(dtype="int64"),
    "class": SimpleNamespace(dtype="string"),
    "share": SimpleNamespace(dtype="float32"),
    "labels": SimpleNamespace(feature=SimpleNamespace(dtype="int64")),
    "text": SimpleNamespace(dtype="string"),
    "captions": SimpleNamespace(feature=SimpleNamespace(dtype="string")),
    "said": SimpleNamespace(dtype="large_string"),
    "fine": SimpleNamespace(dtype="int64", names=["a", "b"]),
    "coarse": SimpleNamespace(dtype="int64", names=["c", "d"]),
}


@pytest.mark.parametrize(
    ("there", "asked", "label", "caption"),
    [
        ("share label class", {}, "label", ""),
        ("class labels text", {}, "class", "text"),
        ("labels share said", {}, "", ""),
        ("fine said", {"caption_key": "said"}, "fine", "said"),
        ("fine coarse label", {}, "label", ""),
        ("fine coarse", {"label_key": "coarse"}, "coarse", ""),
        ("fine coarse captions", {"label_key": "none"}, "", "captions"),
        ("label captions text", {"caption_key": "none"}, "label", ""),
        ("said captions", {"label_key": "said"}, "said", "captions"),
    ],
)
def test_columns_of_classes_and_captions(there: str, asked: dict, label: str, caption: str) -> None:
    features, options = {key: VALUES[key] for key in there.split()}, Options("x", **asked)
    assert columns.label_key(features, options) == label
    assert columns.caption_key(features, options) == caption


def test_several_columns_of_classes_are_refused() -> None:
    features = {key: VALUES[key] for key in ("coarse", "fine")}
    with pytest.raises(DataError, match=r"coarse, fine; data\.label_key names one, or none"):
        columns.label_key(features, Options("x"))


class Cells(Part):
    """A part of a table that has one column."""

    def __init__(self, values: list, feature: Any = None) -> None:
        whole = SimpleNamespace(features={"label": feature})
        super().__init__(whole, "train", np.arange(len(values)) + 7)
        object.__setattr__(self, "values", values)

    def cells(self, column: str) -> list:
        return self.values


def classes(values: list, feature: Any = None, **asked: Any) -> tuple[list, tuple, list]:
    parts = {"train": Cells(values[:-1], feature), "heldout": Cells(values[-1:])}
    numbers, names, notes = columns.numbers_of(parts, "label", Options("x", "here", **asked))
    return [*numbers["train"], *numbers["heldout"]], names, notes


def test_values_that_are_classes() -> None:
    assert classes([7, 5, 7, 5]) == ([1, 0, 1, 0], ("5", "7"), [])
    assert classes(["b", "a", "b", "a"]) == ([1, 0, 1, 0], ("a", "b"), [])
    assert classes([True, False, True, True]) == ([1, 0, 1, 1], ("False", "True"), [])
    assert classes([1, 1], VALUES["fine"]) == ([1, 1], ("a", "b"), [])
    assert classes([3, 2, 1], label_key="label") == ([2, 1, 0], ("1", "2", "3"), [])
    why = "the column 'label' has 3 values in 3 images, and is not of classes"
    assert classes([3, 2, 1]) == ([0, 0, 0], (), [why])
    for wrong, feature in ((None, None), (-1, VALUES["fine"]), (2, VALUES["fine"])):
        with pytest.raises(
            DataError, match=r"train row 8 has no label in the column 'label'; .*none"
        ):
            classes([1, wrong, 1, 1, 1], feature)


def test_texts_of_a_row() -> None:
    found = columns.captions_of(Cells([" a ", ["b", " a", "b", "", None]]), "text", Options("x"))
    assert [found.of_image(row) for row in range(2)] == [("a",), ("b", "a")]
    for empty in (None, " ", [], [""]):
        with pytest.raises(DataError, match="train row 8 has no caption in the column 'text'"):
            columns.captions_of(Cells(["a", empty]), "text", Options("x"))


def test_a_picture_that_is_no_file_is_named_by_its_place() -> None:
    assert read_image(Encoded("train row 3", png(9)), 0)[1, 1].tolist() == [9, 9, 9]
    with pytest.raises(DataError, match=r"^train row 3 cannot be read: it is no picture$"):
        read_image(Encoded("train row 3", b"x"), 0)


def test_batches_go_on_exactly_also_from_other_files(hf: Any, tmp_path: Path) -> None:
    whole = table(hf, 12)
    (tmp_path / "parquet").mkdir()
    whole.to_parquet(str(tmp_path / "parquet" / "a.parquet"))
    first = train_batches(load(saved(whole, tmp_path / "set")), batch_size=4, seed=0)
    for _ in range(3):
        next(first)
    again = train_batches(load(tmp_path / "parquet"), batch_size=4, seed=0)
    again.set_state(first.get_state())
    one, other = next(first), next(again)
    np.testing.assert_array_equal(one["x"], other["x"])
    np.testing.assert_array_equal(one["cond"]["label"], other["cond"]["label"])


def test_one_of_several_configurations(
    hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "set"
    place.mkdir()
    lines = ["---", "configs:"]
    for first, name in enumerate(("small", "large")):
        table(hf, 4, 10 * first).to_parquet(str(place / f"{name}.parquet"))
        lines += [f"- config_name: {name}", f"  data_files: {name}.parquet"]
    (place / "README.md").write_text("\n".join([*lines, "---"]))
    found = load(f"{place}:large", heldout_fraction=0)
    assert items(found)[0][:, 1, 1, 0].tolist() == [10, 11, 12, 13]
    with pytest.raises(
        DataError, match=r":config at the end of data\.dir \(\['small', 'large'\]\)"
    ):
        load(place)

    def fetch(name: str, config: str | None, cache_dir: str) -> Any:
        assert (name, config) == ("owner/set", "large")
        return hf.DatasetDict({"train": table(hf, 4)})

    monkeypatch.setattr(hf, "load_dataset", fetch)
    assert len(load("owner/set:large", heldout_fraction=0).splits["train"]) == 4
