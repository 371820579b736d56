"""Recordings from files: reading, preparing, and one clear sentence for each that does not fit."""

import re
import sys

import numpy as np
import pytest
import soundfile

from diffusion_jax.data import DataError
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sound_files import Preparation, prepare, resampled, without_silence
from diffusion_jax.data.sound_reading import look_at, read_sound

HOW = Preparation(rate=8_000, channels=1, loudness=0.0, cut="windows", length=512)


def write(path, samples, rate=8_000, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **more)
    return path


def tone(seconds=0.2, rate=8_000, frequency=440.0, amplitude=0.3):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".aiff"])
def test_common_formats_are_read(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", np.stack([tone(), -tone()], 1))
    assert look_at(path) == (8_000, 2)
    samples, rate = read_sound(path)
    assert (samples.shape, samples.dtype, rate) == ((1600, 2), np.float32, 8_000)
    np.testing.assert_allclose(samples[:, 0], tone(), atol=0.05 if suffix == ".ogg" else 4e-5)


def test_samples_of_16_bits_are_kept_exactly(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (600, 1), np.int16)
    path = write(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(prepare(path, HOW), samples)


def test_g722_is_decoded(tmp_path):
    codec = pytest.importorskip("G722").G722(16_000, 64_000)
    sound = (tone(1.0, 16_000) * 2**15).astype(np.int16)
    path = tmp_path / "a.g722"
    path.write_bytes(bytes(codec.encode(sound)))
    assert look_at(path) == (16_000, 1)
    samples, rate = read_sound(path)
    assert (samples.shape, rate) == ((16_000, 1), 16_000)
    delay = np.correlate(samples[:, 0], sound, "full").argmax() - len(sound) + 1
    assert 0 <= delay <= 40
    rest = samples[delay + 200 :, 0] - sound[200 : len(sound) - delay] / 2**15
    assert np.std(rest) < 0.05 * np.std(sound / 2**15)


def test_without_its_package_g722_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.g722").write_bytes(b"1234")
    monkeypatch.setitem(sys.modules, "G722", None)
    with pytest.raises(DataError, match=r"a\.g722 is in G\.722, which needs `pip install G722`"):
        read_sound(tmp_path / "a.g722")


@pytest.mark.parametrize(("rate", "to"), [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000)])
def test_a_tone_is_the_same_at_another_rate(rate, to):
    there = resampled(tone(0.5, rate)[:, None].astype(np.float32), rate, to)
    expected = tone(0.5, to)[:, None]
    assert there.shape == expected.shape
    np.testing.assert_allclose(there[400:-400], expected[400:-400], atol=2e-3)


def test_a_tone_above_the_band_is_filtered_out():
    there = resampled(tone(0.5, 16_000, 6_000)[:, None].astype(np.float32), 16_000, 8_000)
    assert np.abs(there[400:-400]).max() < 3e-3


def test_the_level_is_that_of_the_whole_recording_before_it_is_cut(tmp_path):
    """So a quiet beginning stays quiet (sp-uhh/sgmse, issue 77)."""
    sound = np.concatenate([tone(0.3, amplitude=0.01), tone(0.3, amplitude=0.1)])
    path = write(tmp_path / "a.wav", sound, subtype="FLOAT")
    found = prepare(path, _how(loudness=-26.0)) / 2**15
    assert 10 * np.log10(np.mean(found**2)) == pytest.approx(-26, abs=0.01)
    np.testing.assert_allclose(found[:, 0] / found.std(), sound / sound.std(), atol=2e-3)


def _how(**changes):
    return Preparation(**{**vars(HOW), **changes})


def test_channels_are_mixed_or_kept(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([tone(), np.zeros(1600)], 1))
    mono, stereo = (prepare(path, _how(channels=channels)) for channels in (1, 2))
    assert (mono.shape, stereo.shape) == ((1600, 1), (1600, 2))
    assert np.abs(mono[:, 0] - stereo[:, 0] / 2).max() <= 1


def test_silence_around_a_shot_is_cut_off_and_it_goes_on_with_silence(tmp_path):
    quiet = np.full(4000, 1e-4)
    path = write(tmp_path / "a.wav", np.concatenate([quiet, tone(0.04), quiet]), subtype="FLOAT")
    shot = prepare(path, _how(cut="shots"))
    assert shot.shape == (512, 1)
    assert abs(np.flatnonzero(np.abs(shot[:, 0]) > 3000)[0]) < 160
    assert not shot[480:].any()
    long = write(tmp_path / "b.wav", tone(1.0))
    assert prepare(long, _how(cut="shots")).shape == (512, 1)
    assert without_silence(np.zeros((9, 1)), 8_000).shape == (9, 1)


def test_a_short_recording_goes_on_with_silence_if_it_may(tmp_path):
    path = write(tmp_path / "a.wav", tone(0.05))
    found = prepare(path, _how(cut="padded"))
    assert found.shape == (512, 1)
    assert not found[400:].any()
    assert found[:400].any()


def _text(path):
    path.write_text("dear diary")
    return path


def _nan(path):
    return write(path, np.where(np.arange(600) == 5, np.nan, 0.1), subtype="FLOAT")


def _cut_off(path):
    write(path, np.random.default_rng(0).standard_normal(9000) / 9)
    path.write_bytes(path.read_bytes()[:5000])
    return path


def _empty(path):
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("made", "name", "says"),
    [
        (_text, "a.wav", r"a\.wav cannot be read: it is no sound"),
        (_nan, "a.wav", r"a\.wav cannot be read: some of its samples are NaN or infinite"),
        (_cut_off, "a.flac", r"a\.flac cannot be read: it is damaged"),
        (_empty, "a.ogg", r"a\.ogg cannot be read: it is empty"),
        (_empty, "a.g722", r"a\.g722 cannot be read: it is empty"),
        (lambda path: write(path, []), "a.wav", r"a\.wav cannot be read: it has no samples"),
        (lambda path: path, "a.wav", r"a\.wav cannot be read: No such file"),
        (
            lambda path: write(path, np.zeros(600)),
            "a.wav",
            r"a\.wav is silent, so that no gain brings it to data\.loudness=-26: leave it out\.",
        ),
        (
            lambda path: write(path, tone(0.05)),
            "a.wav",
            r"a\.wav is shorter than a window: 0\.05 s, which are 400 samples, of "
            r"data\.length=512 \(0\.06 s\); data\.cut=padded goes on with silence\.",
        ),
    ],
)
def test_a_bad_recording_ends_in_one_sentence_with_its_name(tmp_path, made, name, says):
    path = made(tmp_path / name)
    with pytest.raises(DataError, match=says) as error:
        prepare(path, _how(loudness=-26.0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Sound((512, 1), 16_000), "does not fit a model of sounds .*; it is at 8,000 Hz: resample"),
        (Sound((512, 2), 8_000), "it is in mono, and must be in stereo"),
        (Sound((5120, 1), 8_000), "it has 1,600 of the 5,120 samples that are needed"),
    ],
)
def test_a_recording_for_a_model_must_be_of_its_kind(tmp_path, kind, says):
    path = write(tmp_path / "a.wav", tone())
    np.testing.assert_array_equal(Sound((9, 1), 8_000).open_file(path), prepare(path, HOW)[:9])
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} .*{says}"):
        kind.open_file(path)
