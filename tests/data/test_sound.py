"""Sounds as a kind of data: encoding, WAV files with passports, pictures, the listening page."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from PIL import Image

from diffusion_jax.data import DataError
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sound_page import LEVEL, Column, level_gain, listening_page
from diffusion_jax.data.spectrograms import BANDS, COLUMNS, FLOOR, TOP, _bands, spectrograms
from diffusion_jax.system.sounds import read_made_by, save_wav

RATE = 16_000


def noise(num=2, length=1024, channels=1, amplitude=0.1):
    return amplitude * np.random.default_rng(0).standard_normal((num, length, channels))


def test_all_items_come_back_exactly():
    kind, items = Sound((2**16, 1), RATE), np.arange(-(2**15), 2**15, dtype=np.int16)[None, :, None]
    x = kind.decode(items)
    assert (x.dtype, x.min(), x.max()) == (np.float32, -1.0, 1 - 2**-15)
    np.testing.assert_array_equal(x.astype(np.float64), items / 2**15)
    np.testing.assert_array_equal(kind.encode(x), items)
    np.testing.assert_array_equal(jax.jit(kind.decode)(jnp.asarray(items)), x)


def test_sounds_are_clipped_and_counted_not_wrapped():
    kind = Sound((4, 1), RATE)
    items = kind.encode(np.array([[[1.5], [-1.5], [0.25], [1.0]], [[0.1], [0.2], [0.3], [-0.4]]]))
    assert items[0, :, 0].tolist() == [32767, -32768, 8192, 32767]
    assert kind.clipped(items).tolist() == [3, 0]


@pytest.mark.parametrize(
    ("shape", "rate", "words"),
    [
        ((16_384, 1), 16_000, "sounds of 1.0 s at 16,000 Hz"),
        ((132_300, 2), 44_100, "sounds of 3.0 s at 44,100 Hz in stereo"),
        ((1024, 6), 8_000, "sounds of 0.13 s at 8,000 Hz in 6 channels"),
    ],
)
def test_words_tell_length_rate_and_channels(shape, rate, words):
    assert Sound(shape, rate).words == words


def test_another_rate_is_another_kind():
    assert Sound((8, 1), 8_000) != Sound((8, 1), 16_000) == Sound((8, 1), 16_000)


def test_sounds_are_not_mirrored():
    kind = Sound((8, 1), RATE)
    with pytest.raises(DataError, match=r"data\.flip=True mirrors images, and these .* 16,000 Hz"):
        kind.mirrored(np.zeros((1, 8, 1)), np.ones(1, bool))


def test_a_wav_has_its_samples_and_its_passport(tmp_path):
    kind = Sound((101, 2), 44_100)
    items = kind.encode(noise(2, 101, 2))
    items[1, 0] = 2**15 - 1
    passports = [{"seed": 1, "prompt": "é 漢 \U0001f98a"}, {"seed": 2}]
    kind.save(tmp_path, np.array([3, 12]), items, passports)
    for number, item, passport in zip((3, 12), items, passports, strict=True):
        path = tmp_path / f"{number:06d}.wav"
        found, rate = soundfile.read(path, dtype="int16")
        np.testing.assert_array_equal(found, item)
        assert rate == 44_100
        assert soundfile.info(path).subtype == "PCM_16"
        with soundfile.SoundFile(path) as file:  # other programs see it too
            assert json.loads(file.comment) == read_made_by(path)
        clipped = {"clipped": 2} if number == 12 else {}
        assert read_made_by(path) == passport | clipped


@pytest.mark.parametrize("length", [0, 1, 100_000])
def test_passports_of_any_length_come_back(tmp_path, length):
    save_wav(tmp_path / "a.wav", np.zeros((3, 1), np.int16), RATE, {"list": "x" * length})
    assert read_made_by(tmp_path / "a.wav") == {"list": "x" * length}
    assert (tmp_path / "a.wav").stat().st_size % 2 == 0  # chunks of RIFF begin at even places
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav")[0], np.zeros(3))


def test_a_damaged_wav_has_no_passport(tmp_path):
    path = tmp_path / "a.wav"
    assert read_made_by(path) is None
    save_wav(path, np.zeros((50, 1), np.int16), RATE, {"seed": 1})
    whole = path.read_bytes()
    for size in (0, 10, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_made_by(path) is None
    soundfile.write(path, np.zeros(50), RATE)  # of another program
    assert read_made_by(path) is None


def test_bands_of_a_spectrum_share_its_whole_power():
    for size, rate in ((512, 16_000), (2048, 8_000), (1024, 44_100)):
        bands = _bands(size, rate)
        np.testing.assert_allclose(bands.sum(1), 1)
        assert (bands.sum(0) > 0).all()


@pytest.mark.parametrize("frequency", [250, 1000, 6000])
def test_a_tone_is_a_line_at_its_pitch_and_loudness(frequency):
    time = np.arange(8192) / RATE
    tone = (10 ** (-50 / 20) * np.sqrt(2) * np.sin(2 * np.pi * frequency * time))[None, :, None]
    image = spectrograms(tone, RATE)[0].astype(int).sum(-1)
    assert image.shape == (BANDS, COLUMNS)
    rows = image[:, 20:-20].argmax(0)
    mel = 2595 * np.log10(1 + np.array([frequency, RATE / 2]) / 700)
    assert abs(rows - (BANDS - 1 - mel[0] / mel[1] * BANDS)).max() <= 1
    shade = np.abs(_shades() - image.max()).argmin() / 255  # of the loudest band
    assert FLOOR + shade * (TOP - FLOOR) == pytest.approx(-50, abs=4)  # bands share its power


def _shades():
    from diffusion_jax.data.spectrograms import _colours

    return _colours().astype(int).sum(-1)


def test_sheets_and_strips_have_a_picture_for_each_sound():
    kind = Sound((1000, 1), 8_000)
    items = kind.encode(noise(4, 1000))
    assert kind.sheet(items, 2).shape == (2 * (BANDS + 1) + 1, 2 * (COLUMNS + 1) + 1, 3)
    assert kind.sheet(items, 2, ["one", "two"]).shape[0] == 2 * (BANDS + 1) + 1
    strip = kind.strip(np.stack([items] * 3), 2)
    assert strip.shape == (2 * (BANDS + 1) + 1, 3 * (COLUMNS + 1) + 1, 3)
    empty = kind.sheet(kind.blank[None], 1)
    assert {tuple(pixel) for pixel in empty[1:-1, 1:-1].reshape(-1, 3)} == {tuple(empty[1, 1])}


def test_gains_bring_sounds_to_a_level_below_a_peak():
    quiet, spiky = noise(1, 4096, amplitude=0.01)[0], np.zeros((4096, 1))
    spiky[7] = 0.5
    level = 10 * np.log10(np.mean((quiet * level_gain(quiet, -26)) ** 2))
    assert level == pytest.approx(-26, abs=1e-6)
    assert np.abs(spiky * level_gain(spiky, -26)).max() == pytest.approx(10 ** (-1 / 20))
    assert level_gain(np.zeros((4, 1)), -26) == 0


class Page(HTMLParser):
    """Tags and links of a page; fails where tags are not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.links, self.found = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_has_players_of_equal_loudness_and_pictures_in_itself():
    kind = Sound((1600, 1), RATE)
    items = kind.encode(noise(3, 1600))
    columns = [Column("given", items), Column("restored", items // 4), Column("original", items)]
    hostile = "<script>alert(1)</script>"
    page = listening_page(columns, RATE, [hostile, "b", ""], {"seed": 3, hostile: 1})
    parsed = Page(page)
    assert (parsed.found.count("audio"), parsed.found.count("img")) == (9, 9)
    assert parsed.found.count("script") == 1
    assert all(link.startswith("data:") for link in parsed.links)
    assert not re.search(r"https?:|url\(|@import", page)
    levels = []
    for link in parsed.links:
        data = base64.b64decode(link.partition(",")[2])
        if link.startswith("data:image/png"):
            assert Image.open(io.BytesIO(data)).size == (COLUMNS, BANDS)
        else:
            sound, rate = soundfile.read(io.BytesIO(data))
            assert (len(sound), rate) == (1600, RATE)
            levels.append(10 * np.log10(np.mean(sound**2)))
    np.testing.assert_allclose(levels, LEVEL, atol=0.02)
    assert [text for text in ("given", "restored", "original") if f"<th>{text}</th>" in page]


def test_a_page_of_silence_and_one_that_would_be_too_large(monkeypatch):
    kind = Sound((64, 1), RATE)
    (page,) = kind.pages(np.zeros((5, 64, 1), np.int16), (), np.zeros(0), {}).values()
    assert page.count("<small>silence</small>") == 5
    monkeypatch.setattr("diffusion_jax.data.sound_page.BYTES", 2 * 64 * 2)
    (page,) = kind.pages(np.zeros((5, 64, 1), np.int16), (), np.zeros(0), {}).values()
    assert page.count("<audio") == 2
    assert "the first 2 of 5" in page
