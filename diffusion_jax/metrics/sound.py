"""Distances of recordings to their originals: SI-SDR, SNR, log-spectral and multi-resolution STFT.

Recordings are `[B, T, C]` in [-1, 1], and each gets a number, float64 `[B]`, over all its channels.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

LIMIT = 100.0  # dB; equality and silence have no logarithm
FLOOR = -80.0  # dB of `log_spectral_distance`; on its scale a sine of amplitude 1 has -6
FRAME, HOP = 512, 128  # of the same, in samples
CLAMP = 1e-8  # least power in `multi_resolution_stft`


class Resolution(NamedTuple):
    """A short-time Fourier transform; in samples."""

    size: int  # of the transform
    hop: int
    window: int  # length, in the middle of the transform


RESOLUTIONS = (
    Resolution(1024, 120, 600),
    Resolution(2048, 240, 1200),
    Resolution(512, 50, 240),
)
"""Those of Parallel WaveGAN (Yamamoto et al. 2019)."""


def decibels(signal: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """`10 log10 signal / rest` of powers `[B]`, within `LIMIT`; NaN where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 10 * np.log10(np.asarray(signal, np.float64) / rest)
    return np.clip(found, -LIMIT, LIMIT)


def snr(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Signal-to-noise ratio `10 log10 |s|^2 / |s - e|^2` in dB, `[B]`, within `LIMIT`.

    NaN for a silent reference that is met exactly.
    """
    s, e = _flat(reference, estimate)
    return decibels(np.sum(s**2, 1), np.sum((s - e) ** 2, 1))


def si_sdr_uncentred(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Scale-invariant signal-to-distortion ratio in dB, `[B]`, within `LIMIT`.

    `10 log10 |a s|^2 / |a s - e|^2` with `a = <e, s> / |s|^2` (Le Roux et al. 2019). Means are not
    subtracted, so that a constant offset counts as distortion. It does not hear the sign: `-s` is
    as good as `s`. A silent estimate of a sound has `-LIMIT`, and a silent reference has NaN.
    """
    s, e = _flat(reference, estimate)
    power, own = np.sum(s**2, 1), np.sum(e**2, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        target = np.sum(e * s, 1) ** 2 / power  # |a s|^2
    rest = np.sum(
        (np.nan_to_num(np.sum(e * s, 1) / np.maximum(power, 1e-300))[:, None] * s - e) ** 2, 1
    )
    found = decibels(target, rest)
    return np.where(power == 0, np.nan, np.where(own == 0, -LIMIT, found))


def log_spectral_distance(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Root mean square difference of log power spectra over frequencies, mean over frames, in dB.

    `[B]`; the log spectral distance of Gray & Markel 1976 of frames of `FRAME` samples with a Hann
    window, each `HOP`. Powers below `FLOOR` count as that, or silence would
    decide: with windows of sum 1 a sine of amplitude 1 has 1/4.

    Raises:
        ValueError: the recordings are shorter than a frame.
    """
    check_pair(reference, estimate, FRAME)
    window = np.hanning(FRAME + 1)[:-1]
    window /= window.sum()

    def levels(x: np.ndarray) -> np.ndarray:
        power = np.abs(_frames(x, window, HOP, FRAME)) ** 2
        return 10 * np.log10(np.maximum(power, 10 ** (FLOOR / 10)))

    pairs = zip(channels_first(reference), channels_first(estimate), strict=True)
    found = [np.mean(np.sqrt(np.mean((levels(s) - levels(e)) ** 2, -1))) for s, e in pairs]
    return np.array(found)


def multi_resolution_stft(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Spectral convergence plus L1 distance of log magnitudes, mean over `RESOLUTIONS`; `[B]`.

    `|S - E|_F / |S|_F + mean |log S - log E|` of magnitudes (Yamamoto et al. 2019), as the package
    auraloss computes it with its defaults.

    Raises:
        ValueError: the recordings are shorter than half of the largest transform.
    """
    check_pair(reference, estimate, max(each.size for each in RESOLUTIONS) // 2 + 1)
    pairs = zip(channels_first(reference), channels_first(estimate), strict=True)
    return np.array([np.mean([_stft(s, e, each) for each in RESOLUTIONS]) for s, e in pairs])


# Not `spectra.stft`: these windows are shorter than the transform, and the numbers are of float64.
def _stft(s: np.ndarray, e: np.ndarray, resolution: Resolution) -> float:
    size, hop, length = resolution
    window, before = np.hanning(length + 1)[:-1], (size - length) // 2
    window = np.pad(window, (before, size - length - before))

    def magnitudes(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (size // 2, size // 2)), mode="reflect")
        return np.sqrt(np.maximum(np.abs(_frames(padded, window, hop, size)) ** 2, CLAMP))

    of_s, of_e = magnitudes(s), magnitudes(e)
    convergence = np.linalg.norm(of_s - of_e) / np.linalg.norm(of_s)
    return float(convergence + np.mean(np.abs(np.log(of_s) - np.log(of_e))))


def _frames(x: np.ndarray, window: np.ndarray, hop: int, size: int) -> np.ndarray:
    """Spectra `[C, frames, size / 2 + 1]` of `[C, T]`."""
    return np.fft.rfft(window * sliding_window_view(x, len(window), axis=-1)[:, ::hop], size)


def _flat(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 `[B, T C]`."""
    check_pair(reference, estimate, 1)
    s, e = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (reference, estimate))
    return s, e


def channels_first(x: np.ndarray) -> np.ndarray:
    """Float64 `[B, C, T]`."""
    return np.asarray(x, np.float64).swapaxes(1, 2)


def check_pair(reference: np.ndarray, estimate: np.ndarray, least: int) -> None:
    """Raises a ValueError unless both are `[B, T, C]` of one shape, with so many samples."""
    if np.shape(reference) != np.shape(estimate) or np.ndim(reference) != 3:
        raise ValueError(
            f"recordings of shapes {np.shape(reference)} and {np.shape(estimate)} cannot be "
            "compared: both must be [B, T, C] of one shape"
        )
    if np.shape(reference)[1] < least:
        raise ValueError(
            f"recordings of {np.shape(reference)[1]} samples are too short: {least} are needed"
        )
