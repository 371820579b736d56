"""SI-SDR, SNR, log-spectral and multi-resolution distances of recordings."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.metrics.sound import (
    LIMIT,
    log_spectral_distance,
    multi_resolution_stft,
    si_sdr_uncentred,
    snr,
)
from tests.reference.make_sound_metrics import pairs

PUBLISHED = json.loads((Path(__file__).parents[1] / "reference/sound_metrics.json").read_text())


def mixture(at: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A sound and orthogonal noise of a known SNR, `[1, 4000, 2]`."""
    rng = np.random.default_rng(seed)
    s, n = 0.1 * rng.standard_normal((2, 1, 4000, 2))
    n -= s * np.sum(n * s) / np.sum(s * s)
    return s, n * np.sqrt(np.sum(s**2) / np.sum(n**2)) * 10 ** (-at / 20)


@pytest.mark.parametrize("at", [-5.0, 0.0, 17.5])
def test_orthogonal_noise_of_a_known_snr_is_found_to_a_hundredth_of_a_decibel(at: float) -> None:
    s, n = mixture(at)
    np.testing.assert_allclose(si_sdr_uncentred(s, s + n), at, atol=0.01)
    np.testing.assert_allclose(snr(s, s + n), at, atol=0.01)


def test_si_sdr_hears_neither_scale_nor_sign_and_snr_hears_both() -> None:
    s, n = mixture(10.0)
    for scale in (0.01, 3.0, -1.0):
        np.testing.assert_allclose(si_sdr_uncentred(s, scale * (s + n)), 10, atol=1e-6)
        np.testing.assert_allclose(si_sdr_uncentred(scale * s, s + n), 10, atol=1e-6)
        assert snr(s, scale * (s + n))[0] < 3.1


def test_si_sdr_keeps_the_mean() -> None:
    """An offset of the size of the sound is as much distortion as noise of 0 dB."""
    s, _ = mixture(0.0)
    s -= s.mean()
    np.testing.assert_allclose(si_sdr_uncentred(s, s + s.std()), 0, atol=0.01)


def test_silence_and_equality_are_defined() -> None:
    s, _ = mixture(0.0)
    with np.errstate(all="raise"):
        for metric in (si_sdr_uncentred, snr):
            assert metric(s, s) == LIMIT
            assert np.isnan(metric(0 * s, 0 * s))
        assert si_sdr_uncentred(s, 0 * s) == -LIMIT
        assert np.isnan(si_sdr_uncentred(0 * s, s))
        assert snr(s, 0 * s) == 0
        assert snr(0 * s, s) == -LIMIT


def test_each_recording_is_measured_by_itself() -> None:
    s, e = np.random.default_rng(0).standard_normal((2, 3, 2500, 1))
    for metric in (si_sdr_uncentred, snr, log_spectral_distance, multi_resolution_stft):
        found = metric(s, e)
        assert found.shape == (3,)
        np.testing.assert_allclose(metric(s[1:2], e[1:2]), found[1:2], rtol=1e-12)


def test_a_known_equaliser_has_a_known_log_spectral_distance() -> None:
    """6 dB in half of the band: the root of half of 36; a gain in all of it: that gain."""
    x = np.random.default_rng(0).standard_normal((1, 16_384, 1))
    spectrum = np.fft.rfft(x, axis=1)
    upper = np.where(np.arange(8193) >= 4096, 10 ** (6 / 20), 1.0)[:, None]
    equalised = np.fft.irfft(upper * spectrum, axis=1)
    np.testing.assert_allclose(log_spectral_distance(x, equalised), 6 / np.sqrt(2), rtol=0.02)
    np.testing.assert_allclose(log_spectral_distance(x, 10 ** (-3 / 20) * x), 3, rtol=1e-6)
    assert log_spectral_distance(x, -x) == 0


def test_the_floor_of_log_spectra_is_as_stated() -> None:
    """A sine in a bin is 6 dB below full scale there, and 12 dB in the bins beside it."""
    sine = np.sin(2 * np.pi * 32 * np.arange(4096) / 512)[None, :, None]
    levels = np.array([80 - 6.0206, 80 - 12.0412, 80 - 12.0412])
    expected = np.sqrt(np.sum(levels**2) / 257)
    np.testing.assert_allclose(log_spectral_distance(sine, 0 * sine), expected, rtol=1e-4)
    assert log_spectral_distance(1e-6 * sine, 0 * sine) == 0


def test_multi_resolution_distance_is_that_of_auraloss() -> None:
    found = [multi_resolution_stft(x[None, :, None], y[None, :, None])[0] for x, y in pairs(16_000)]
    np.testing.assert_allclose(found, PUBLISHED["stft"], rtol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (((1, 4000, 1), (1, 4001, 1)), r"\(1, 4000, 1\) and \(1, 4001, 1\) cannot be compared"),
        (((4000, 1), (4000, 1)), r"both must be \[B, T, C\] of one shape"),
        (((1, 300, 1), (1, 300, 1)), "of 300 samples are too short: 512 are needed"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        log_spectral_distance(*map(np.zeros, shapes))
