"""Pitch of tones and glides, and errors that are known."""

import numpy as np
import pytest

from diffusion_jax.metrics.sound_pitch import pitch, pitch_errors, share_of_octave_errors

RATE = 16_000
T = np.arange(RATE // 2) / RATE


def cents(found: np.ndarray, true: np.ndarray | float) -> np.ndarray:
    return 1200 * np.log2(found / true)


@pytest.mark.parametrize("f", [65.4, 110.0, 261.63, 440.0, 987.77])
@pytest.mark.parametrize("harmonics", [1, 8])
def test_tones_have_their_pitch_to_two_cents_or_to_eight_near_1000_hz(
    f: float, harmonics: int
) -> None:
    x = sum(np.cos(2 * np.pi * k * f * T + k) / k for k in range(1, harmonics + 1))
    found = pitch(0.1 * x, RATE)
    assert np.isfinite(found).all()
    assert np.abs(cents(found, f)).max() < (2 if f < 500 else 8)


def test_a_missing_fundamental_is_heard() -> None:
    x = sum(np.cos(2 * np.pi * k * 150 * T) for k in (2, 3, 4, 5))
    np.testing.assert_allclose(pitch(0.1 * x, RATE), 150, rtol=2e-3)


def test_a_glide_is_followed() -> None:
    """An octave in half a second, at the middle of each frame's two periods of 60 Hz."""
    f = 150 * 2 ** (2 * T)
    found = pitch(0.3 * np.sin(2 * np.pi * np.cumsum(f) / RATE), RATE)
    middle = np.arange(len(found)) * 160 + 267
    assert np.abs(cents(found, f[middle])).max() < 30


def test_noise_and_silence_have_none() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(T))
    assert np.isnan(pitch(noise, RATE)).mean() > 0.9
    assert np.isnan(pitch(0 * T, RATE)).all()
    assert np.isnan(pitch(1e-5 * np.sin(2 * np.pi * 200 * T), RATE)).all()


def test_errors_are_counted_by_kind() -> None:
    """In turn: right, 20 cents off, an octave up, two down, a fifth, lost, invented, silence."""
    nan = np.nan
    reference = np.array([100, 100, 100, 100, 100, 100, nan, nan])
    estimate = np.array([100, 100 * 2 ** (20 / 1200), 200, 25, 150, nan, 90, nan])
    found = pitch_errors(reference, estimate)
    assert found[:5] == (5, 2, 3, 2, 8)
    np.testing.assert_allclose(found.cents, 20)
    share = share_of_octave_errors([found, found._replace(octave=0)], 50)
    np.testing.assert_allclose(share.value, 0.2)
    assert share.low < 0.2 < share.high


@pytest.mark.parametrize(
    ("num", "highest", "says"),
    [(500, 1000, "500 samples are too short"), (8000, 5000, "must lie between 0 and 4000.0")],
)
def test_what_cannot_be_measured_is_refused(num: int, highest: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pitch(np.zeros(num), RATE, highest=highest)
