"""Pitch of recordings, and errors of pitch."""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from diffusion_jax.metrics.intervals import Estimate
from diffusion_jax.metrics.texts import ratio

LOWEST, HIGHEST = 60.0, 1000.0  # Hz, by default
THRESHOLD = 0.15  # of YIN; a period whose normalised difference is below it is voiced
STEP = 0.01  # seconds between frames
QUIET = 1e-3  # RMS of frames without pitch, 60 dB below full scale
TINY = 1e-12  # least divisor
OCTAVE = 1200.0  # cents
GROSS = 50.0  # cents; half a semitone


def pitch(x: np.ndarray, rate: int, lowest: float = LOWEST, highest: float = HIGHEST) -> np.ndarray:
    """Fundamental frequency in Hz of frames of 10 ms, `[frames]`; NaN where there is none.

    YIN, steps 1-5 (de Cheveigne & Kawahara 2002): the first local minimum below `THRESHOLD` of the
    cumulative mean normalised difference, at a lag that a parabola refines.

    Args:
        x: one channel `[T]`.
        rate: in Hz.
        lowest: Hz; a frame has two periods of it.
        highest: Hz, below a quarter of the rate.

    Raises:
        ValueError: the recording is shorter than a frame, or the range is impossible.
    """
    if not 0 < lowest < highest <= rate / 4:
        raise ValueError(f"pitch from {lowest} to {highest} Hz must lie between 0 and {rate / 4}")
    longest = shortest(rate, lowest) // 2
    least = int(rate / highest)
    if len(x) < 2 * longest:
        raise ValueError(
            f"{len(x)} samples are too short for a pitch of {lowest} Hz: {2 * longest} are needed"
        )
    frames = sliding_window_view(np.asarray(x, np.float64), 2 * longest)[:: round(STEP * rate)]
    difference = _difference(frames, longest)
    normalised = _normalised(difference)
    inner = normalised[:, least:-1]
    lower = (inner <= normalised[:, least - 1 : -2]) & (inner < normalised[:, least + 1 :])
    dips = lower & (inner < THRESHOLD)
    lag = dips.argmax(1) + least
    # Of the difference itself: normalised it falls faster on one side.
    before, at, after = (difference[np.arange(len(lag)), lag + i] for i in (-1, 0, 1))
    curvature = np.maximum(before - 2 * at + after, TINY)
    period = lag + np.clip((before - after) / (2 * curvature), -1, 1)
    loud = np.sqrt(np.mean(frames**2, 1)) > QUIET
    return np.where(dips.any(1) & loud, rate / period, np.nan)


def shortest(rate: int, lowest: float = LOWEST) -> int:
    """Samples of a frame: no shorter recording has a pitch."""
    return 2 * (int(np.ceil(rate / lowest)) + 1)


def _difference(frames: np.ndarray, longest: int) -> np.ndarray:
    """`d(lag)` `[frames, longest + 1]` of frames `[frames, 2 longest]` (Eq. 6)."""
    size = 3 * longest
    first = np.fft.rfft(frames[:, :longest], size)
    product = np.fft.irfft(np.conj(first) * np.fft.rfft(frames, size), size)[:, : longest + 1]
    energy = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), 1)
    energy = energy[:, longest:] - energy[:, : longest + 1]  # of the window from each lag on
    return np.asarray(np.maximum(energy[:, :1] + energy - 2 * product, 0))


def _normalised(difference: np.ndarray) -> np.ndarray:
    """`d'(lag)`, over its mean up to each lag; 1 at lag 0 (Eq. 8)."""
    lags, total = np.arange(1, difference.shape[1]), np.cumsum(difference[:, 1:], 1)
    normalised = np.ones_like(difference)
    normalised[:, 1:] = difference[:, 1:] * lags / np.maximum(total, TINY)
    return normalised


class PitchErrors(NamedTuple):
    """Counts of frames, and how far pitches are apart where both have one of the same octave."""

    both: int  # frames with pitch in both
    octave: int  # of these, those within `GROSS` cents of another octave of the reference
    gross: int  # of these, those off by more than `GROSS` cents, octave errors among them
    voicing: int  # frames with pitch in one of them alone
    frames: int
    cents: float  # summed distance over those that are not gross


def pitch_errors(reference: np.ndarray, estimate: np.ndarray) -> PitchErrors:
    """Errors of pitches in Hz, twice `[frames]`, NaN where there is none."""
    voiced = np.isfinite(reference), np.isfinite(estimate)
    both = voiced[0] & voiced[1]
    cents = OCTAVE * np.log2(estimate[both] / reference[both])
    octaves = np.round(cents / OCTAVE)
    fine = np.abs(cents) <= GROSS
    other = (octaves != 0) & (np.abs(cents - OCTAVE * octaves) <= GROSS)
    return PitchErrors(
        int(both.sum()),
        int(other.sum()),
        int((~fine).sum()),
        int((voiced[0] != voiced[1]).sum()),
        len(reference),
        float(np.abs(cents[fine]).sum()),
    )


def share_of_octave_errors(errors: list[PitchErrors], repeats: int) -> Estimate:
    """Octave errors among frames with pitch in both; the interval is over recordings."""
    counts = np.array([(each.octave, each.both) for each in errors])
    return ratio(counts[:, 0], counts[:, 1], repeats)
