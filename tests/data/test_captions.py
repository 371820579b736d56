import json
import multiprocessing

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffusion_jax.data import (
    ArraySource,
    Captions,
    DataError,
    Dataset,
    Images,
    Split,
    describe_dataset,
    empty_dataset,
    load_dataset,
    train_batches,
)
from diffusion_jax.data.batches import epoch_order
from diffusion_jax.data.sets.digits import png

COUNTS = (1, 2, 3, 4, 5)


def captioned(size=10):
    """Images that hold their number, with 1 to 5 texts each that name it, and no classes."""
    images = np.arange(size, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    source = ArraySource(images, np.zeros(size, np.int32))
    texts = [[f"{i} {j}" for j in range(COUNTS[i % 5])] for i in range(size)]
    split = Split(source, Captions.of(texts))
    return Dataset("counted", Images((2, 2, 1)), {"train": split, "heldout": split})


class Embed:
    """Hands on the numbers of the captions; a class, for processes that need it by pickle."""

    def __call__(self, ids):
        return {"text": ids[:, None], "half": ids / 2}


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def rows_of(batches):
    return np.concatenate([b["x"][:, 0, 0, 0] for b in batches]).astype(int)


def ids_of(batches):
    return np.concatenate([batch["cond"]["text"][:, 0] for batch in batches])


# Captions


def test_texts_are_kept_once_and_found_by_image():
    captions = Captions.of([["a", "b"], ["b"], ["c", "a", "d"]], ["x", "y", "z"], ["s", "s", "t"])
    assert captions.texts == ("a", "b", "c", "d")
    assert [captions.of_image(i) for i in range(3)] == [("a", "b"), ("b",), ("c", "a", "d")]
    assert (captions.ids.dtype, captions.offsets.tolist()) == (np.int32, [0, 2, 3, 6])
    np.testing.assert_array_equal(captions.first(np.array([2, 0, 1, 2])), [2, 0, 1, 2])
    assert (len(captions), captions.concepts[1], captions.styles[2]) == (3, "y", "t")
    assert len(Captions.of([])) == 0


def test_every_text_of_an_image_is_as_likely():
    """Draws evenly over their range: each of 3 texts a third of the time, the ends included."""
    captions = Captions.of([["a", "b", "c"], ["d"]])
    draws = np.linspace(0, 2**32 - 1, 3000).astype(np.uint64)
    drawn = captions.draw(np.zeros(3000, int), draws)
    np.testing.assert_array_equal(np.bincount(drawn), [1000, 1000, 1000])
    assert (captions.draw(np.ones(3000, int), draws) == 3).all()
    assert drawn.dtype == np.int32


def test_draws_are_uniform_and_independent_of_the_flips():
    _, coins, draws = epoch_order(0, 0, 40000)
    uniform = draws / 2**32
    assert 0 <= uniform.min() < 1e-3
    assert 1 - 1e-3 < uniform.max() < 1
    for part in (uniform[coins], uniform[~coins]):
        assert abs(part.mean() - 0.5) < 4 / np.sqrt(12 * len(part))


# Batches


def test_batches_carry_one_text_of_each_image_as_embedded():
    dataset = captioned()
    batches = take(train_batches(dataset, batch_size=4, seed=0, embed=Embed()), 500)
    rows, ids = rows_of(batches), ids_of(batches)
    texts = np.array([dataset.splits["train"].captions.texts[i] for i in ids])
    assert (np.array([int(t.split()[0]) for t in texts]) == rows).all()
    for row, count in enumerate(COUNTS):
        seen = np.unique(texts[rows == row], return_counts=True)[1]
        assert len(seen) == count
        assert (abs(seen - 200 / count) < 4 * np.sqrt(200 / count)).all()
    np.testing.assert_array_equal(batches[0]["cond"]["half"] * 2, ids[:4])


def test_texts_change_nothing_else_of_a_batch():
    plain = take(train_batches(captioned(), batch_size=7, seed=5, flip=True), 9)
    texts = take(train_batches(captioned(), batch_size=7, seed=5, flip=True, embed=Embed()), 9)
    assert [batch["cond"] for batch in plain] == [{}] * 9
    for one, other in zip(plain, texts, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_texts_depend_on_neither_processes_nor_resumption():
    def stream(**settings):
        return train_batches(captioned(), seed=3, embed=Embed(), **settings)

    whole = ids_of(take(stream(batch_size=12), 8))
    parts = [take(stream(batch_size=4, process_index=i, process_count=3), 8) for i in range(3)]
    joined = [ids_of([part[step] for part in parts]) for step in range(8)]
    np.testing.assert_array_equal(np.concatenate(joined), whole)
    late = stream(batch_size=12)
    late.set_state({"next_index": 5})
    np.testing.assert_array_equal(ids_of(take(late, 3)), whole[60:])


def test_an_embedding_needs_captions():
    bare = Dataset("bare", Images((2, 2, 1)), {"train": Split(captioned().splits["train"].source)})
    with pytest.raises(DataError, match=r"data\.name='bare' has no captions"):
        train_batches(bare, batch_size=2, seed=0, embed=Embed())


def test_an_empty_set_has_empty_captions_or_none():
    kind = Images((4, 4, 3))
    for captions in (False, True):
        empty = empty_dataset("empty", kind, ("a", "b"), captions)
        assert (empty.name, empty.kind, empty.num_classes) == ("empty", kind, 2)
        for name in ("train", "heldout"):
            split = empty.splits[name]
            assert empty.arrays(name)[0].shape == (0, 4, 4, 3)
            assert empty.arrays(name)[0].dtype == np.uint8
            assert (split.captions is not None) == captions
            assert len(split) == len(split.captions or ()) == 0


# Folders


def write_folder(root, texts, where="", key="text"):
    """Pictures 0.png, 1.png, ... of that grey, and their metadata."""
    folder = root / where
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, text in enumerate(texts):
        Image.new("L", (8, 8), i).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", key: text}, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def pairs(dataset):
    """The grey of each image, with its texts, over both splits."""
    found = {}
    for name, split in dataset.splits.items():
        assert len(split.captions) == len(split)
        greys = dataset.arrays(name)[0][:, 0, 0, 0]
        found |= {int(grey): split.captions.of_image(i) for i, grey in enumerate(greys)}
    return found


def test_a_folder_with_metadata_has_captions_and_no_classes(tmp_path):
    texts = ["ä \u2028dog", ["a cat", "felis", "a cat"], *(f"number {i}" for i in range(2, 20))]
    write_folder(tmp_path, texts)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "metadata.jsonl").write_text("of a tool")
    dataset = load_dataset("folder", data_dir=str(tmp_path))
    assert pairs(dataset) == {0: ("ä \u2028dog",), 1: ("a cat", "felis")} | {
        i: (f"number {i}",) for i in range(2, 20)
    }
    assert dataset.num_classes == 0
    again = load_dataset("folder", data_dir=str(tmp_path), memory=False)
    assert pairs(again) == pairs(dataset)
    write_folder(tmp_path, ["a wolf", *texts[1:]])
    assert load_dataset("folder", data_dir=str(tmp_path)).fingerprint != dataset.fingerprint


def test_the_key_of_the_captions_can_be_named(tmp_path):
    write_folder(tmp_path, ["one", "two", "three"], key="prompt")
    found = load_dataset(
        "folder", data_dir=str(tmp_path), caption_key="prompt", heldout_fraction=0.3
    )
    assert pairs(found)[1] == ("two",)
    with pytest.raises(
        DataError, match=r"line 1 has none of the keys text.*only file_name, prompt"
    ):
        load_dataset("folder", data_dir=str(tmp_path))
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match=r"data\.caption_key='prompt' needs a file metadata\.jsonl"):
        load_dataset("folder", data_dir=str(tmp_path), caption_key="prompt")


@pytest.mark.parametrize("at_root", [False, True])
def test_split_folders_have_metadata_each_or_together(tmp_path, at_root):
    write_folder(tmp_path, ["one", "two"], "train")
    write_folder(tmp_path, ["three", "four", "five"], "test")
    if at_root:
        lines = [
            json.dumps(
                {**json.loads(line), "file_name": f"{split}/{json.loads(line)['file_name']}"}
            )
            for split in ("train", "test")
            for line in (tmp_path / split / "metadata.jsonl").read_text().splitlines()
        ]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
        for split in ("train", "test"):
            (tmp_path / split / "metadata.jsonl").unlink()
    dataset = load_dataset("folder", data_dir=str(tmp_path))
    train, heldout = (dataset.splits[name].captions for name in ("train", "heldout"))
    assert [train.of_image(i) for i in range(2)] == [("one",), ("two",)]
    assert heldout.of_image(2) == ("five",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"metadata\.jsonl line 3 is not JSON"),
        ("[1]", r"line 3 is not a JSON object"),
        ('{"text": "a"}', r"line 3 has no `file_name`, only text"),
        ('{"file_name": "9.png", "text": "a"}', r"line 3 names 9\.png, which is not there"),
        ('{"file_name": "../0.png", "text": "a"}', r"line 3: file_name '\.\./0\.png' must lie"),
        ('{"file_name": "0.png", "text": "a"}', r"line 3 names 0\.png again, after .* line 1;"),
        ('{"file_name": "2.png", "text": " "}', r"line 3: 'text' must be a text or a list"),
        ('{"file_name": "2.png", "text": []}', r"line 3: 'text' must be a text or a list"),
        ("", r"no line for 2\.png \(1 images have none\)"),
    ],
)
def test_bad_metadata_is_named_by_file_and_line(tmp_path, line, words):
    write_folder(tmp_path, ["one", "two"])
    Image.new("L", (8, 8), 2).save(tmp_path / "2.png")
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=words):
        load_dataset("folder", data_dir=str(tmp_path))


@pytest.mark.slow
def test_workers_draw_the_same_texts(tmp_path):
    write_folder(tmp_path, [[f"{i} {j}" for j in range(4)] for i in range(20)])
    streams = [
        train_batches(
            load_dataset("folder", data_dir=str(tmp_path), memory=memory, heldout_fraction=0),
            batch_size=7,
            seed=0,
            num_workers=workers,
            embed=Embed(),
        )
        for memory, workers in ((True, 0), (False, 2))
    ]
    resident, on_disk = (ids_of(take(stream, 6)) for stream in streams)
    np.testing.assert_array_equal(on_disk, resident)
    assert len(multiprocessing.active_children()) >= 2
    streams[1].close()


# Sets of TFDS


class Captioned(tfds.core.GeneratorBasedBuilder):
    """Texts in the ways that the sets of TFDS hold them."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def _info(self):
        text = tfds.features.Text()
        features = {
            "image": tfds.features.Image(shape=(4, 4, 1)),
            "caption": text,
            "several": tfds.features.Sequence(text),
            "nested": tfds.features.Sequence({"text": text, "id": np.int64}),
            "number": np.int64,
            "style": text,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            texts = [f"{i} {j}" for j in range(i)]
            yield (
                i,
                {
                    "image": png(np.full((4, 4), i, np.uint8)),
                    "caption": f"ä {i}",
                    "several": texts,
                    "nested": [{"text": f"all {t}", "id": 0} for t in ["x", *texts]],
                    "number": i,
                    "style": "plain",
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    for key in ("", "nested"):
        described = describe_dataset("captioned", data_dir=folder, caption_key=key)
        assert described.splits["train"].captions is not None
    load_dataset("captioned", data_dir=folder)
    return folder


@pytest.mark.parametrize("key", ["", "caption", "nested", "nested/text"])
@pytest.mark.slow
def test_captions_of_tfds_sets_belong_to_their_images(prepared, key):
    dataset = load_dataset("captioned", data_dir=prepared, caption_key=key)
    expected = {i: (f"ä {i}",) for i in range(6)}
    if key.startswith("nested"):
        expected = {i: ("all x", *(f"all {i} {j}" for j in range(i))) for i in range(6)}
    captions, greys = dataset.splits["train"].captions, dataset.arrays("train")[0][:, 0, 0, 0]
    assert {int(grey): captions.of_image(i) for i, grey in enumerate(greys)} == expected
    assert captions.styles == ("plain",) * 6
    assert captions.concepts == ()
    assert len(dataset.splits["heldout"].captions) == 2
    part = load_dataset(
        "captioned", data_dir=prepared, caption_key=key, train_split="train[2:]", memory=False
    )
    split = part.splits["train"]
    assert len(split) == len(split.captions) == 4
    for i, image in enumerate(split.gather(np.arange(4))[0]):
        assert split.captions.of_image(i) == expected[int(image[0, 0, 0])]
        assert split.names(np.array([i])) == [expected[int(image[0, 0, 0])][0]]


@pytest.mark.slow
def test_wrong_caption_keys_of_tfds_sets_are_refused(prepared):
    with pytest.raises(DataError, match=r"'number' is no text.*has caption, several, nested/text"):
        load_dataset("captioned", data_dir=prepared, caption_key="number")
    with pytest.raises(DataError, match=r"data\.caption_key='several': image \d of split 'train'"):
        load_dataset("captioned", data_dir=prepared, caption_key="several")
    with pytest.raises(DataError, match=r"data\.caption_key='text' is no text.*has none"):
        load_dataset("digits", data_dir=prepared, caption_key="text")
    assert load_dataset("digits", data_dir=prepared).splits["train"].captions is None
