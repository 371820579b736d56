"""Texts as tokens: decoded, counted, written and shown, whatever they contain."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import Images, load_dataset
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.levels import MASK_COLOUR, Levels
from diffusion_jax.data.sets.digits import split_digits
from diffusion_jax.data.sets.vocabularies import byte_pairs, in_bytes
from diffusion_jax.data.tokens import MASK, Tokens
from diffusion_jax.system.pictures import save_gif

TEXT = "naïve — 🦊 “x”\nÅ"  # of characters of one to four bytes
BYTES = in_bytes([], [], 0)
LETTERS = Tokens((40,), tuple("abcd \n"))
rng = np.random.default_rng(0)


def test_kinds_are_named_by_what_their_tokens_are():
    assert LETTERS.words == "texts of 40 characters"
    assert Tokens((300,), BYTES.pieces).words == "texts of 300 bytes"
    pairs = byte_pairs(["the then there"], [], 258).pieces
    assert Tokens((1300,), pairs).words == "texts of 1,300 tokens (of 258)"
    assert (LETTERS.vocabulary, Tokens((1,), BYTES.pieces).vocabulary) == (6, 256)
    assert Images((8, 8, 1)).vocabulary == 0
    x = LETTERS.decode(LETTERS.encode(np.array([[3]])))
    assert (x.dtype, x.tolist()) == (np.int32, [[3]])


def test_texts_are_the_pieces_and_masks_a_sign():
    kind = Tokens((5,), ("a", "bc", "\n"))
    assert kind.text(np.array([[0, 1, 2, 3, 1], [-1, 0, 99, 0, 0]])) == [
        f"abc\n{MASK}bc",
        f"{MASK}a{MASK}aa",
    ]


def test_bytes_of_a_character_are_joined_and_parts_of_one_are_replaced():
    tokens = BYTES.encode(TEXT).astype(int)
    kind = Tokens((len(tokens),), BYTES.pieces)
    assert kind.text(tokens[None]) == [TEXT]
    assert json.loads(json.dumps(kind.pieces)) == list(BYTES.pieces)
    masked = np.where(np.arange(len(tokens)) == 3, 256, tokens)  # the second byte of ï
    assert kind.text(masked[None]) == [TEXT.replace("ï", f"\ufffd{MASK}")]


def test_a_letter_of_a_prompt_is_as_many_tokens_as_it_has_bytes():
    kind = Tokens((6,), in_bytes([], [], 0).pieces)
    assert kind.read("é_a").tolist() == [0xC3, 0xA9, 256, ord("a"), 256, 256]
    with pytest.raises(DataError, match="7 tokens are more than the 6 of a window"):
        kind.read("éééa")
    with pytest.raises(DataError, match="'é' is no token of the texts of 6 characters"):
        Tokens((6,), ("a", "e")).read("aé")
    with pytest.raises(DataError, match="is no token of the texts of 6 characters"):
        Tokens((6,), ("a", "e")).read("a\ud800")


def test_windows_have_as_many_characters_as_the_text():
    """However they cut it, also within characters."""
    tokens = BYTES.encode(TEXT * 10).astype(int)
    kind = Tokens((4,), BYTES.pieces)
    windows = tokens[: len(tokens) // 4 * 4].reshape(-1, 4)
    whole = bytes(tokens[: windows.size].tolist()).decode("utf-8", "ignore")
    assert len(whole) <= kind.lengths(windows).sum() <= len(whole) + 1
    assert kind.lengths(np.array([[256, 256, 65, 66]])).tolist() == [4]
    pairs = byte_pairs([TEXT * 50], [], 262)
    assert Tokens((1,), pairs.pieces).lengths(pairs.encode(TEXT)[None]).tolist() == [len(TEXT)]


def read_back(page):
    """Texts by number, as CommonMark reads fenced blocks under headings."""
    texts, heading, fence, lines = {}, None, None, []
    for line in page.split("\n"):
        run = re.match("`*", line).group()
        if fence is None:
            if line.startswith("#"):
                heading = line
            elif len(run) >= 3:
                fence, lines, language = run, [], line[len(run) :]
        elif line.rstrip(" ") == run and len(run) >= len(fence):
            if language != "json":
                texts[heading] = "\n".join(lines)
            fence = None
        else:
            lines.append(line)
    assert fence is None
    return texts


def test_no_text_breaks_out_of_its_block(tmp_path):
    texts = ["```\n# Not a heading\n", "plain", "`````\n</pre><script>alert(1)</script>\n```````"]
    alphabet = sorted(set("".join(texts)))
    width = max(map(len, texts))
    items = np.array([[alphabet.index(c) for c in text.ljust(width, "#")] for text in texts])
    kind = Tokens((width,), tuple(alphabet))
    about = [{"step": 7, "label": label, "prompt": "```\n# x"} for label in (0, 1, 1)]
    kind.save(tmp_path, np.array([4, 5, 12]), items, about)
    page = (tmp_path / "samples.md").read_text()
    whole = kind.text(items)
    assert read_back(page) == {f"## {n}": text for n, text in zip((4, 5, 12), whole, strict=True)}
    assert page.count('"step": 7') == page.count('"prompt"') == 1  # once, on top
    assert page.count('{"label": 1}') == 2


def test_characters_keep_their_places_on_a_sheet():
    """So that an animation stands still: only the cells of masks differ between states."""
    items = rng.integers(0, 6, (3, 200))
    kind = Tokens((200,), LETTERS.pieces)
    masked = np.where(rng.uniform(size=items.shape) < 0.1, 6, items)
    whole, part = kind.sheet(items, 1), kind.sheet(masked, 1)
    assert whole.shape == part.shape
    lines = [6 + 17 * row for row in range(3)]  # of the first text
    cell = (whole.shape[1] - 16) / 96
    for place in range(200):
        top, left = lines[place // 96], 8 + place % 96 * cell
        box = np.s_[top : top + 17, int(left) + 2 : int(left + cell) - 1]
        assert (whole[box] != part[box]).any() == (masked[0, place] == 6), place
    strip = kind.strip(np.stack([masked] * 4), 2)
    assert len(strip) > 2 * 4 * 3 * 17
    headed = kind.sheet(items, 1, ["one", "two", "three"], [False, True, False])
    assert len(headed) == len(whole) + 3 * 17
    rows = np.flatnonzero(((headed[..., 0] > 150) & (headed[..., 1] < 20)).any(1))
    second = 6 + 17 * 5  # after a heading, three lines and a blank one
    assert second <= rows.min() < rows.max() < second + 17


def test_texts_that_grow_make_an_animation(tmp_path):
    kind = Tokens((50,), ("a", "a long piece"))
    frames = [kind.sheet(np.full((2, 50), token), 1) for token in (2, 0, 1)]
    assert len({frame.shape for frame in frames}) > 1
    save_gif(tmp_path / "x.gif", frames)
    with Image.open(tmp_path / "x.gif") as image:
        assert (image.n_frames, image.size[::-1]) == (3, frames[-1].shape[:2])


def states_of(kind, changes):
    """64 states of 10 texts, masks first, whose tokens are set at `changes` random steps."""
    states = np.full((64, 10, *kind.shape), kind.vocabulary)
    for _ in range(changes):
        when = rng.integers(1, 64, states.shape[1:])
        what = rng.integers(0, kind.vocabulary, states.shape[1:])
        states = np.where(np.arange(64)[:, None, None] >= when, what, states)
    return states


@pytest.mark.parametrize("changes", [1, 5])
def test_a_page_has_every_state_in_one_small_file(changes):
    kind = Tokens((256,), tuple(map(chr, range(33, 33 + 97))))
    states = states_of(kind, changes)
    (page,) = kind.pages(states[-1], (), states, {"seed": 3}).values()
    assert len(page.encode()) < 200_000
    assert not re.search(r"(?:src|href)\s*=|https?:|url\(|@import", page.split("<body>")[0])
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    pieces = [None if p is None else kind.pieces.index(p) for p in data["pieces"]]
    assert pieces.count(None) == 1
    found = np.empty_like(states)
    for row, text in enumerate(data["texts"]):
        for place, changed in enumerate(text):
            for at, token in zip(changed[::2], changed[1::2], strict=True):
                number = pieces[token]
                found[at:, row, place] = kind.vocabulary if number is None else number
    np.testing.assert_array_equal(found, states)


def test_nothing_of_a_text_or_passport_is_markup():
    hostile = "</script><script>alert(1)</script><!--"
    kind = Tokens((2,), (hostile, "\x00&"))
    states = np.array([[[2, 2]], [[0, 1]]])
    (page,) = kind.pages(states[-1], (), states, {hostile: hostile}).values()
    assert page.count("<script") == page.count("</script>") == 2
    assert "<!--" not in page
    assert page.count("&lt;script&gt;alert(1)") == 3  # the text, and the passport's two cells
    assert "\x00" not in page


def test_digits_are_tokens_of_their_levels():
    dataset, images = load_dataset("digits_tokens"), split_digits()
    kind = dataset.kind
    assert (kind.words, kind.vocabulary) == ("grey images of 8x8 pixels of 17 levels", 17)
    for key, name in (("train", "train"), ("heldout", "test")):
        items, labels = dataset.arrays(key)
        assert items.dtype == np.int32
        np.testing.assert_array_equal(items.reshape(-1, 8, 8), [im for im, _ in images[name]])
        assert labels.tolist() == [label for _, label in images[name]]
    assert kind.lengths(items[:2]).tolist() == [64, 64]


def test_levels_are_shown_as_pixels_and_masks_in_colour(tmp_path):
    kind = Levels((4,), tuple("012"))
    items = np.array([[0, 1, 2, 3]])
    sheet = kind.sheet(items, 1)
    assert {tuple(pixel) for pixel in sheet.reshape(-1, 3).tolist()} == {
        *((0, 0, 0), (128, 128, 128), (255, 255, 255)),
        MASK_COLOUR,
    }
    assert kind.strip(np.stack([items] * 3), 1).shape[1] > 2 * sheet.shape[1]
    kind.save(tmp_path, np.array([5]), items, [{"seed": 0}])
    with Image.open(tmp_path / "000005.png") as image:
        assert [image.getpixel(p)[0] for p in ((0, 0), (1, 0), (0, 1))] == [0, 128, 255]
    assert kind.pages(items, (), np.stack([items] * 3), {}) == {}
