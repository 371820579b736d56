"""Voices compared: the network beside torch's, and what is compared of two recordings."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.evaluation import sound_speaker
from diffusion_jax.evaluation.sound_measures import MEASURES
from diffusion_jax.evaluation.sound_speaker import (
    RATE,
    lstm,
    mel_spectrum,
    parts,
    speaker_similarity,
    spoken,
    voice,
)
from tests.reference.make_sound_metrics import small_lstm

STORED = json.loads((Path(__file__).parents[1] / "reference" / "sound_metrics.json").read_text())


def test_the_network_is_torchs() -> None:
    weights, x = small_lstm()
    np.testing.assert_allclose(lstm(weights, 2, x), STORED["lstm"], atol=1e-12)


@pytest.mark.parametrize(
    ("length", "starts"),
    [(100, [0]), (25_600, [0]), (33_000, [0, 77]), (70_123, [0, 77, 154, 231, 308])],
)
def test_parts_are_those_of_the_package(length: int, starts: list[int]) -> None:
    """`VoiceEncoder.compute_partial_slices(length, 1.3, 0.75)` of Resemblyzer 0.1.4."""
    assert parts(length) == starts
    assert len(mel_spectrum(np.zeros(length))) >= starts[-1] + 160


def test_a_tone_is_in_the_band_of_its_pitch() -> None:
    """Slaney's scale: 1 kHz has 15 mel, and bands are (15 + 27 log(8) / log(6.4)) / 41 apart."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    apart = (15 + 27 * np.log(8) / np.log(6.4)) / 41
    assert np.argmax(mel_spectrum(tone)[20]) == round(15 / apart) - 1


def test_a_voice_has_norm_one_and_silence_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a network of random weights."""
    rng = np.random.default_rng(0)
    shapes = {"weight_ih": (16, 40), "weight_hh": (16, 4), "bias_ih": (16,), "bias_hh": (16,)}
    weights = {f"lstm.{key}_l0": rng.normal(size=shape) for key, shape in shapes.items()}
    weights |= {"linear.weight": rng.normal(size=(256, 4)), "linear.bias": np.zeros(256)}
    monkeypatch.setattr(sound_speaker, "_weights", lambda: weights)
    monkeypatch.setattr(sound_speaker, "LAYERS", 1)
    x = 0.001 * rng.normal(size=40_000)
    found = voice(x)
    assert found.shape == (256,)
    np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-6)
    np.testing.assert_allclose(voice(0.1 * x), found, atol=1e-6)  # both are made louder
    assert np.isnan(voice(0 * x)).all()
    assert np.isnan(voice(x[:0])).all()


def test_only_what_is_spoken_in_the_reference_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def spectrum(x: np.ndarray) -> np.ndarray:
        power = np.array([np.sum(band**2) for band in np.array_split(np.abs(np.fft.rfft(x)), 8)])
        return power / np.linalg.norm(power)

    monkeypatch.setattr(sound_speaker, "voice", spectrum)
    rng = np.random.default_rng(0)
    x = np.zeros((2, 2 * RATE, 1))
    x[:, 4800:20_000] = 0.1 * rng.normal(size=(2, 15_200, 1))
    there = spoken(x[0, :, 0])
    assert np.flatnonzero(there)[[0, -1]].tolist() == [4800 - 3 * 480, 20_160 + 3 * 480 - 1]
    tone = np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE)[:, None]
    elsewhere = x + tone * ~there[:, None]
    np.testing.assert_allclose(speaker_similarity(x, elsewhere), 1, atol=1e-12)
    np.testing.assert_allclose(speaker_similarity(x, 0 * x + tone), 8**-0.5, atol=0.05)
    assert not spoken(np.zeros(RATE)).any()


@pytest.mark.parametrize(
    ("rate", "seconds", "there", "says"),
    [
        (8_000, 2.0, True, "is for 16,000 Hz, and these recordings are of 8,000 Hz"),
        (RATE, 2.0, False, "pip install --no-deps resemblyzer"),
        (RATE, 1.0, True, "needs 1.6 s, and these recordings are of 1 s"),
        (RATE, 2.0, True, ""),
    ],
)
def test_what_it_needs_is_said(
    rate: int, seconds: float, there: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there or None)
    found = MEASURES["speaker_similarity"].lacks(rate, seconds)
    assert says in found
    assert bool(says) == bool(found)
