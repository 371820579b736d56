import gzip
import json
import multiprocessing
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from diffusion_jax.data import (
    ArraySource,
    DataError,
    Dataset,
    Images,
    Split,
    describe_dataset,
    load_dataset,
    to_float,
    to_uint8,
    train_batches,
)
from diffusion_jax.data.sets import tfds_sets
from diffusion_jax.data.sets.digits import png

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A TFDS folder that tests share, so that each set is prepared once."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def digits(prepared):
    return load_dataset("digits", data_dir=prepared)


def counted(size):
    """A data set whose labels are the places of its images, which are black on the left."""
    images = np.zeros((size, 2, 2, 1), np.uint8)
    images[:, :, 1] = 255
    split = Split(ArraySource(images, np.arange(size, dtype=np.int32)))
    names = tuple(map(str, range(size)))
    return Dataset("counted", Images((2, 2, 1)), {"train": split, "heldout": split}, names)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def labels(taken):
    return np.concatenate([batch["cond"]["label"] for batch in taken])


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])
        np.testing.assert_array_equal(one["cond"]["label"], other["cond"]["label"])


# Batches


def test_batches_are_stored_items(digits):
    batch = next(train_batches(digits, batch_size=32, seed=0))
    assert batch["x"].shape == (32, 8, 8, 1)
    assert batch["x"].dtype == np.uint8
    assert (batch["x"].min(), batch["x"].max()) == (0, 255)
    assert batch["cond"]["label"].dtype == np.int32


@pytest.mark.parametrize("batch_size", [3, 10, 25])
def test_each_epoch_holds_every_image_once_in_a_new_order(batch_size):
    stream = labels(take(train_batches(counted(10), batch_size=batch_size, seed=0), 20))
    epochs = stream[: len(stream) // 10 * 10].reshape(-1, 10)
    assert len(epochs) >= 6
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_the_seed_alone_fixes_the_stream():
    def run(seed, prefetch):
        batches = take(train_batches(counted(50), batch_size=8, seed=seed, prefetch=prefetch), 9)
        return labels(batches)

    np.testing.assert_array_equal(run(1, 0), run(1, 4))
    assert (run(1, 4) != run(2, 4)).any()


def test_restore_is_exact_mid_epoch_with_prefetch_in_flight(digits):
    def stream():
        return train_batches(digits, batch_size=100, seed=3, flip=True, prefetch=4)

    first = stream()
    take(first, 7)
    state = json.loads(json.dumps(first.get_state()))
    expected = take(first, 20)
    fresh = stream()
    take(fresh, 2)
    fresh.set_state(state)
    assert fresh.get_state() == state
    assert_same(take(fresh, 20), expected)
    first.set_state(state)
    assert_same(take(first, 20), expected)


def test_a_batch_says_which_images_it_has():
    """Of all processes; here 3 of 4 images each, counted in a set whose labels count it."""
    whole = labels(take(train_batches(counted(30), batch_size=12, seed=0), 3)[2:])
    batches = train_batches(counted(30), batch_size=4, seed=0, process_index=1, process_count=3)
    images = ", ".join(map(str, whole[:5]))
    assert batches.describe(2) == f"batch 2 (training images {images}, ...; epoch 0)"


def test_processes_share_the_stream_without_overlap():
    def stream(batch_size, index, count):
        return take(
            train_batches(
                counted(60),
                batch_size=batch_size,
                seed=0,
                flip=True,
                process_index=index,
                process_count=count,
            ),
            5,
        )

    shards = [stream(4, index, 3) for index in range(3)]
    assert len(set(np.concatenate([labels(shard) for shard in shards]))) == 60
    joined = [
        {
            "x": np.concatenate([shard[step]["x"] for shard in shards]),
            "cond": {"label": np.concatenate([s[step]["cond"]["label"] for s in shards])},
        }
        for step in range(5)
    ]
    assert_same(joined, stream(12, 0, 1))


def test_flips_mirror_half_of_the_images():
    def mirrored(flip):
        stream = train_batches(counted(100), batch_size=100, seed=0, flip=flip)
        x = np.concatenate([batch["x"] for batch in take(stream, 20)])
        assert (np.sort(x[:, 0, :, 0], axis=1) == [0, 255]).all()
        return x[:, 0, 0, 0] == 255

    assert not mirrored(False).any()
    coins = mirrored(True)
    assert abs(coins.mean() - 0.5) < 0.04  # 3.6 standard errors of 2,000 coins
    assert (coins[:100] != coins[100:200]).any()


def test_sets_without_classes_give_no_label():
    dataset = Dataset("", Images((2, 2, 1)), counted(4).splits)
    assert next(train_batches(dataset, batch_size=2, seed=0))["cond"] == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"prefetch": -1}, "prefetch=-1"),
        ({"process_index": 2, "process_count": 2}, "process_index=2"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        train_batches(counted(4), **({"batch_size": 2, "seed": 0} | settings))


@pytest.mark.parametrize("setting", [{"image_size": -1}, {"heldout_fraction": 1.0}])
def test_settings_out_of_range_are_refused(setting, prepared):
    with pytest.raises(ValueError, match=f"{next(iter(setting))}="):
        load_dataset("digits", data_dir=prepared, **setting)


def test_floats_and_bytes_are_inverse():
    values = np.arange(256, dtype=np.uint8)
    assert to_float(values).dtype == np.float32
    assert (to_float(values)[[0, 255]] == [-1, 1]).all()
    np.testing.assert_array_equal(to_uint8(to_float(values)), values)
    np.testing.assert_array_equal(to_float(values), -to_float(values)[::-1])
    np.testing.assert_allclose(to_float(values), values / 127.5 - 1, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(to_uint8([-7.0, 7.0]), [0, 255])


def test_arrays_hold_the_first_images(digits):
    heldout = digits.splits["heldout"]
    images, classes = digits.arrays("heldout")
    assert len(images) == len(classes) == len(heldout)
    assert [len(array) for array in digits.arrays("heldout", 7)] == [7, 7]
    items, labels = heldout.gather(np.array([3]))
    np.testing.assert_array_equal(items[0], images[3])
    assert labels[0] == classes[3]


# Digits


def test_digits_are_those_of_scikit_learn(digits):
    both = [digits.arrays(split) for split in ("train", "heldout")]
    images = np.concatenate([pair[0] for pair in both]).reshape(-1, 64)
    ours = np.column_stack([np.rint(images * (16 / 255)), np.concatenate([p[1] for p in both])])
    theirs = np.column_stack([load_digits().data, load_digits().target])
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == len(theirs) == 1797
    shares = np.bincount(both[1][1]) / np.bincount(load_digits().target)
    assert (abs(shares - 0.2) < 0.01).all()
    assert digits.num_classes == len(digits.class_names) == 10


@pytest.mark.slow
def test_digits_need_no_tensorflow(digits, tmp_path):
    script = """
        import sys
        from tests import without_tensorflow
        from diffusion_jax.data import DataError, load_dataset
        print(load_dataset("digits", data_dir=sys.argv[1]).fingerprint)
        assert "tensorflow" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digits.fingerprint
    assert "examples/s" not in done.stderr
    assert "OpenCV" not in done.stderr


# Fashion-MNIST


def write_idx(folder, shift=0):
    folder.mkdir(exist_ok=True)
    for prefix, size in (("train", 12), ("t10k", 4)):
        images = (np.arange(size * 784) + shift).astype(np.uint8).reshape(size, 28, 28)
        classes = (np.arange(size) % 10).astype(np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", classes)):
            head = b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes()
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(head + values.tobytes()))


def test_fashion_mnist_reads_idx_files(prepared, tmp_path):
    for shift in (0, 5):  # other files under the same name are read anew
        write_idx(tmp_path / "idx", shift)
        dataset = load_dataset("fashion_mnist", data_dir=prepared, manual_dir=str(tmp_path / "idx"))
        images, classes = dataset.arrays("train")
        expected = (np.arange(12 * 784) + shift).astype(np.uint8).reshape(12, 28, 28, 1)
        place = [next(i for i in range(12) if (expected[i] == image).all()) for image in images]
        assert sorted(place) == list(range(12))
        np.testing.assert_array_equal(classes, np.array(place) % 10)
        assert len(dataset.splits["heldout"]) == 4
        assert dataset.class_names[9] == "Ankle boot"


def test_fashion_mnist_refuses_a_file_cut_short(prepared, tmp_path):
    write_idx(tmp_path / "idx")
    path = tmp_path / "idx" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is not a whole"):
        load_dataset("fashion_mnist", data_dir=prepared, manual_dir=str(tmp_path / "idx"))


def test_fashion_mnist_without_files_names_the_remedy(prepared, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"data\.manual_dir=.* lacks train-images"):
        load_dataset("fashion_mnist", data_dir=prepared, manual_dir=str(tmp_path))

    class Offline:
        def is_prepared(self):
            return False

        def download_and_prepare(self, **kwargs):
            raise ConnectionError("no network")

    monkeypatch.setattr(tfds_sets, "DEBIAN_DIR", tmp_path)
    monkeypatch.setattr(tfds_sets.tfds, "builder", lambda *args, **kwargs: Offline())
    monkeypatch.setattr(tfds_sets, "_hide_accelerators", lambda: None)
    with pytest.raises(DataError, match=r"no network.*dataset-fashion-mnist"):
        load_dataset("fashion_mnist", data_dir=prepared)


# Any set of TFDS


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Colour images of different sizes, found by name as TFDS's own sets are."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def _info(self):
        label = tfds.features.ClassLabel(names=["wide", "tall"])
        features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features | {"id": np.int64})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "validation": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            shape = (10, 20 + i, 3) if i % 2 == 0 else (20 + i, 10, 3)
            yield i, {"image": png(np.full(shape, 40 * i, np.uint8)), "label": i % 2, "id": i}


def test_any_set_of_tfds(prepared, monkeypatch):
    hidden = []
    monkeypatch.setattr(tfds_sets, "_hide_accelerators", lambda: hidden.append(True))
    settings = {"data_dir": prepared, "heldout_split": "validation"}
    with pytest.raises(DataError, match=r"data\.image_size=0 keeps images as stored"):
        load_dataset("tiny_shapes", **settings)
    dataset = load_dataset("tiny_shapes", image_size=8, **settings)
    assert hidden == [True]  # prepared once, with the accelerators hidden
    images, classes = dataset.arrays("train")
    assert images.shape == (6, 8, 8, 3)
    assert sorted(images[:, 0, 0, 0]) == [0, 40, 80, 120, 160, 200]
    np.testing.assert_array_equal(images[:, 0, 0, 0] // 40 % 2, classes)
    assert dataset.class_names == ("wide", "tall")
    on_disk = load_dataset("tiny_shapes", image_size=8, memory=False, **settings)
    np.testing.assert_array_equal(on_disk.arrays("train")[0], images)
    sliced = load_dataset("tiny_shapes", image_size=8, train_split="train[:50%]", **settings)
    assert len(sliced.splits["train"]) == 3
    with pytest.raises(DataError, match=r"data\.train_split='train\[:0\]'.*holds no items"):
        load_dataset("tiny_shapes", image_size=8, train_split="train[:0]", **settings)
    assert dataset.fingerprint == on_disk.fingerprint != sliced.fingerprint


class TinyTexts(tfds.core.GeneratorBasedBuilder):
    """Texts of two classes and of different lengths."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def _info(self):
        label = tfds.features.ClassLabel(names=["low", "high"])
        features = {"text": tfds.features.Text(), "label": label}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        texts = ["abcdefgh" * 5, "ABCDEFGH" * 4, "short"], ["abcdé" * 3]
        return {
            name: self._generate_examples(split)
            for name, split in zip(("train", "test"), texts, strict=True)
        }

    def _generate_examples(self, texts):
        for number, text in enumerate(texts):
            yield number, {"text": text, "label": int(text.isupper())}


def test_any_text_set_of_tfds(prepared, monkeypatch):
    monkeypatch.setattr(tfds_sets, "_hide_accelerators", lambda: None)
    assert describe_dataset("tiny_texts", data_dir=prepared) is None
    dataset = load_dataset("tiny_texts", data_dir=prepared, length=8)
    assert dataset.class_names == ("low", "high")
    assert dataset.kind.words == "texts of 8 characters"
    items, labels = dataset.arrays("train")
    texts = dataset.kind.text(items)
    assert [text.isupper() for text in texts] == (labels == 1).tolist()
    assert "".join(sorted({*"".join(texts)})) == "ABCDEFGHabcdefgh"
    assert dataset.kind.text(dataset.arrays("heldout")[0]) == ["abcd\ufffdabc"]
    assert "1 of 3 training texts are shorter" in "; ".join(dataset.notes)
    with pytest.raises(DataError, match=r"data\.caption_key='title' is no text .* has text"):
        load_dataset("tiny_texts", data_dir=prepared, length=8, caption_key="title")
    with pytest.raises(DataError, match=r"every training text of data\.name='tiny_texts'"):
        load_dataset("tiny_texts", data_dir=prepared, length=99)


def test_a_missing_split_is_named_with_those_there(prepared):
    with pytest.raises(DataError, match=r"data\.heldout_split='dev'.*has test, train\."):
        load_dataset("digits", data_dir=prepared, heldout_split="dev")


@pytest.mark.parametrize(
    ("train", "heldout"),
    [("train", "train"), ("all", "test"), ("train", "train[:10%]"), ("train+test", "train[5:9]")],
)
def test_a_split_that_is_all_trained_on_is_refused(prepared, train, heldout):
    with pytest.raises(DataError, match=r"data\.heldout_split='.*' is all trained on, as part of"):
        load_dataset("digits", data_dir=prepared, train_split=train, heldout_split=heldout)


def test_splits_that_overlap_are_said(prepared):
    def notes(train, heldout):
        return load_dataset(
            "digits", data_dir=prepared, train_split=train, heldout_split=heldout
        ).notes

    assert notes("train[:50%]", "train[25%:]") == (
        "361 of the 1,082 items of data.heldout_split='train[25%:]' are trained on, too",
    )
    assert notes("train[:100]", "train")[0].startswith("100 of the 1,442 items")
    assert notes("train[:90%]", "train[90%:]") == notes("train", "test") == ()


def test_equal_splits_are_refused_before_anything_is_prepared(tmp_path):
    for name in ("digits", "fashion_mnist", "emoji", "cifar10"):
        settings = {"data_dir": str(tmp_path), "heldout_split": "train"}
        with pytest.raises(DataError, match="heldout_split='train' is all trained on"):
            load_dataset(name, **settings)
        with pytest.raises(DataError, match="heldout_split='train' is all trained on"):
            describe_dataset(name, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "near"), [("digit", "digits"), ("cifar1O", "cifar10")])
def test_an_unknown_name_gets_the_nearest_match(prepared, name, near):
    with pytest.raises(DataError, match=f"data.name='{name}'.*nearest match is '{near}'"):
        load_dataset(name, data_dir=prepared)


# Folders


def save(path, shape=(8, 8), colour=(255, 0, 0), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, shape[::-1], colour).save(path, **options)


def names_of(split):
    return {split.source.pictures.names[i] for i in range(len(split))}


def test_a_folder_with_classes(tmp_path):
    for i in range(30):
        save(tmp_path / "dog" / f"{i}.png", colour=(200, i, 0))
        save(tmp_path / "cat" / "deep" / f"{i}.jpg", colour=(0, i, 0))
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    dataset = load_dataset("folder", data_dir=str(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.kind.shape == (8, 8, 3)
    assert len(dataset.splits["train"]) + len(dataset.splits["heldout"]) == 60
    images, classes = dataset.arrays("train")
    np.testing.assert_array_equal(images[:, 0, 0, 0] > 100, classes == 1)


def test_added_files_move_no_others_between_splits(tmp_path):
    def load():
        return load_dataset("folder", data_dir=str(tmp_path), heldout_fraction=0.4, memory=False)

    for i in range(40):
        save(tmp_path / f"{i}.png")
    before = load()
    assert 6 <= len(before.splits["heldout"]) <= 26
    assert before.num_classes == 0
    for i in range(40, 60):
        save(tmp_path / f"{i}.png")
    after = load()
    assert names_of(before.splits["train"]) < names_of(after.splits["train"])
    assert names_of(before.splits["heldout"]) < names_of(after.splits["heldout"])
    assert before.fingerprint != after.fingerprint


def test_sub_folders_named_as_splits_are_the_splits(tmp_path):
    for i in range(3):
        save(tmp_path / "train" / "a" / f"{i}.png")
        save(tmp_path / "test" / "b" / f"{i}.png")
    dataset = load_dataset("folder", data_dir=str(tmp_path))
    assert dataset.class_names == ("a", "b")
    assert set(dataset.arrays("train")[1]) == {0}
    assert set(dataset.arrays("heldout")[1]) == {1}


def test_unreadable_images_are_skipped_and_named(tmp_path, caplog):
    rows = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for i in range(20):
        Image.fromarray(rows).save(tmp_path / f"{i}.jpg")
    whole = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    dataset = load_dataset("folder", data_dir=str(tmp_path))
    assert dataset.skipped == ("cut.jpg", "text.png")
    assert "skipped 2 unreadable files: cut.jpg (image file is truncated" in caplog.text
    assert "text.png (it is no picture)" in caplog.text
    assert len(dataset.splits["train"]) + len(dataset.splits["heldout"]) == 20


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no readable image"):
        load_dataset("folder", data_dir=str(tmp_path))
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset("folder", data_dir=str(tmp_path / "missing"))
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset("folder")
    save(tmp_path / "a" / "0.png")
    with pytest.raises(DataError, match="leaves 0 images to train on and 1"):
        load_dataset("folder", data_dir=str(tmp_path))
    save(tmp_path / "a" / "1.png")
    assert len(load_dataset("folder", data_dir=str(tmp_path)).splits["heldout"]) == 1
    save(tmp_path / "1.png")
    with pytest.raises(DataError, match="1 images beside its sub-folders"):
        load_dataset("folder", data_dir=str(tmp_path))


def test_images_of_any_shape_and_mode_become_rgb_squares(tmp_path):
    # The middle third of a wide image is green; the crop must keep just that.
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = (0, 255, 0)
    Image.fromarray(wide).save(tmp_path / "0.png")
    # Stored on its side: orientation 6 turns the red left half to the top.
    side = np.zeros((16, 16, 3), np.uint8)
    side[:, :8] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(side).save(tmp_path / "1.png", exif=exif)
    save(tmp_path / "2.png", (16, 16), (255, 0, 0, 0), "RGBA")
    save(tmp_path / "3.png", (16, 16), 77, "L")
    Image.fromarray(np.full((16, 16), 77 * 256, np.uint16)).save(tmp_path / "4.png")
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(tmp_path / "5.png")
    with pytest.raises(DataError, match=r"data\.image_size=0 keeps images as stored"):
        load_dataset("folder", data_dir=str(tmp_path), heldout_fraction=0)
    dataset = load_dataset("folder", data_dir=str(tmp_path), image_size=8, heldout_fraction=0)
    images = dataset.arrays("train")[0]
    assert images.shape == (6, 8, 8, 3)
    assert len(dataset.splits["heldout"]) == 0
    assert (images[0, :, 3:-3] == (0, 255, 0)).all()
    assert (images[0, ..., 1] > 200).all()
    assert (images[1, 0] == (255, 0, 0)).all()
    assert (images[1, -1] == 0).all()
    assert (images[2] == 255).all()
    assert (images[3] == 77).all()
    assert (images[4] == 77).all()
    assert (images[5] == (9, 8, 7)).all()


def test_images_stored_on_their_side_have_the_size_they_are_seen_at(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    save(tmp_path / "0.jpg", (16, 24), exif=exif)
    save(tmp_path / "1.png", (24, 16))
    dataset = load_dataset("folder", data_dir=str(tmp_path))
    assert dataset.kind.shape == (24, 16, 3)


def test_resizing_does_not_alias(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "0.png")
    dataset = load_dataset("folder", data_dir=str(tmp_path), image_size=8, heldout_fraction=0)
    assert abs(dataset.arrays("train")[0].astype(int) - 127).max() <= 8


@pytest.mark.slow
def test_workers_and_threads_make_the_same_batches(tmp_path):
    for i in range(20):
        save(tmp_path / ("a" if i % 2 else "b") / f"{i}.png", colour=(i, 0, 0))
    settings = {"data_dir": str(tmp_path), "heldout_fraction": 0}
    resident = load_dataset("folder", **settings)
    on_disk = load_dataset("folder", memory=False, **settings)
    streams = [
        train_batches(dataset, batch_size=7, seed=0, num_workers=workers)
        for dataset, workers in ((resident, 0), (on_disk, 0), (on_disk, 2))
    ]
    assert on_disk.arrays("heldout")[0].shape == (0, 8, 8, 3)
    streams[2].set_state({"next_index": 2})
    first = take(streams[0], 6)
    assert_same(take(streams[1], 6), first)
    assert_same(take(streams[2], 4), first[2:])
    assert len(multiprocessing.active_children()) >= 2
    assert streams[2].get_state() == {"next_index": 6}
    streams[2].close()
