"""Extended short-time objective intelligibility of speech (ESTOI; Jensen & Taal 2016)."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import resample_poly
from scipy.signal.windows import kaiser

from diffusion_jax.metrics.sound import channels_first, check_pair

RATE = 10_000  # Hz, at which it is defined
FRAME, HOP, SIZE = 256, 128, 512  # samples of a frame, between frames, and of the transform
BANDS, LOWEST = 15, 150.0  # third octaves, and the middle of the first one in Hz
SPAN = 30  # frames of a segment, 384 ms
RANGE = 40.0  # dB; frames that are weaker than the strongest by more are silence
REJECTION = 60.0  # dB, of the filter for resampling
TINY = np.finfo(np.float64).eps


def estoi(reference: np.ndarray, estimate: np.ndarray, rate: int) -> np.ndarray:
    """Intelligibility of each recording, `[B]`, 1 for the reference itself; channels are averaged.

    The correlation of third-octave spectrograms over segments of 384 ms, whose rows and columns are
    normalised. Silent frames of the reference are left out of both. It may be negative, and it is
    NaN if fewer than `SPAN` frames of the reference are not silent.

    Args:
        reference: clean speech `[B, T, C]`.
        estimate: of the same shape.
        rate: of both, in Hz.
    """
    check_pair(reference, estimate, 1)
    pairs = zip(channels_first(reference), channels_first(estimate), strict=True)
    found = [[_of_one(x, y, rate) for x, y in zip(*pair, strict=True)] for pair in pairs]
    return np.mean(np.array(found), 1)


def _of_one(x: np.ndarray, y: np.ndarray, rate: int) -> float:
    """Of one channel, twice `[T]`."""
    x, y = _resampled(x, rate), _resampled(y, rate)
    if len(x) <= FRAME:
        return float("nan")
    x, y = _without_silence(x, y)
    if len(x) <= FRAME:
        return float("nan")
    bands = _third_octaves()
    x, y = (np.sqrt(np.abs(np.fft.rfft(_frames(each), SIZE)) ** 2 @ bands) for each in (x, y))
    if len(x) < SPAN:
        return float("nan")
    # [segments, BANDS, SPAN]
    x, y = (_normalised(_normalised(sliding_window_view(each, SPAN, 0), 2), 1) for each in (x, y))
    return float(np.mean(np.sum(x * y, (1, 2)) / SPAN))


def _normalised(x: np.ndarray, axis: int) -> np.ndarray:
    """Of mean 0 and norm 1 along an axis; 0 where it is constant."""
    x = x - x.mean(axis, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), TINY)


def _resampled(x: np.ndarray, rate: int) -> np.ndarray:
    """At `RATE`, by the filter of Octave's `resample`, a Kaiser window that rejects `REJECTION`."""
    if rate == RATE:
        return x
    common = np.gcd(RATE, rate)
    up, down = RATE // common, rate // common
    cutoff = 1 / (2 * max(up, down))
    half = int(np.ceil((REJECTION - 8) / (28.714 * cutoff / 10)))
    taps = np.sinc(2 * cutoff * np.arange(-half, half + 1))
    taps *= kaiser(len(taps), 0.1102 * (REJECTION - 8.7))
    return np.asarray(resample_poly(x, up, down, window=taps / taps.sum()))


def _window() -> np.ndarray:
    return np.hanning(FRAME + 2)[1:-1]


def _frames(x: np.ndarray) -> np.ndarray:
    """Windowed frames `[N, FRAME]`, without a last one that just fits, as published."""
    return _window() * sliding_window_view(x, FRAME)[: len(x) - FRAME : HOP]


def _without_silence(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both of the frames in which `x` is not silent, overlapped and added."""
    of_x, of_y = _frames(x), _frames(y)
    level = 20 * np.log10(np.linalg.norm(of_x, axis=1) + TINY)
    heard = level > level.max() - RANGE
    if level.max() <= 20 * np.log10(TINY) + RANGE:  # nothing but rounding
        heard[:] = False

    def added(frames: np.ndarray) -> np.ndarray:
        out = np.zeros((len(frames) + 1) * HOP if len(frames) else 0)
        for number, frame in enumerate(frames):
            out[number * HOP : number * HOP + FRAME] += frame
        return out

    return added(of_x[heard]), added(of_y[heard])


def _third_octaves() -> np.ndarray:
    """1 where a frequency is in a band, `[SIZE / 2 + 1, BANDS]`; edges are the nearest ones."""
    f = np.linspace(0, RATE / 2, SIZE // 2 + 1)
    edges = LOWEST * 2 ** ((2 * np.arange(BANDS)[:, None] + np.array([-1, 1])) / 6)
    low, high = np.abs(f[:, None, None] - edges).argmin(0).T
    number = np.arange(len(f))[:, None]
    return ((number >= low) & (number < high)).astype(np.float64)
