"""Recordings of users and packages: from files to int16 of one rate, loudness and length."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sound_page import level_gain
from diffusion_jax.data.sound_reading import read_sound
from diffusion_jax.system.texts import shown

FRAME = 0.02  # seconds over which the level is taken, where silence is cut off
QUIET = 1e-4  # of the power of the loudest frame, -40 dB: less is silence


@dataclass(frozen=True)
class Preparation:
    """How recordings are prepared; a part of the fingerprint of the data."""

    rate: int  # Hz, to which they are resampled
    channels: int  # 1 mixes all of them
    loudness: float  # dB, root mean square of each whole recording; 0: as recorded
    cut: str  # see `data.cut`
    length: int  # of a window in samples


def prepare(path: Path, how: Preparation) -> np.ndarray:
    """A recording as int16 `[T, C]`, `length` or more: resampled, its level set, and cut.

    The level is set once, before any window is cut, so that all windows have the gain of their
    recording; of shots the silence at both ends is left out first.

    Raises:
        DataError: the file cannot be read, is silent although a level is to be set, or is shorter
            than a window and must not be.
    """
    x, rate = read_sound(path)
    if how.channels == 1:
        x = x.mean(1, keepdims=True, dtype=np.float32)
    if rate != how.rate:
        x = resampled(x, rate, how.rate)
    if how.cut == "shots":
        x = without_silence(x, how.rate)
    if how.loudness:
        gain = level_gain(x, how.loudness)
        if not gain:
            raise DataError(
                f"{shown(path)} is silent, so that no gain brings it to "
                f"data.loudness={how.loudness:g}: leave it out."
            )
        x = x * np.float32(gain)
    if how.cut == "shots":
        x = x[: how.length]
    if len(x) < how.length:
        if how.cut == "windows":
            raise DataError(_short(path, len(x), how.rate, how.length, "data.length"))
        x = np.pad(x, ((0, how.length - len(x)), (0, 0)))
    return Sound(x.shape, how.rate).encode(x)


def _short(path: Path, size: int, rate: int, length: int, of: str) -> str:
    return (
        f"{shown(path)} is shorter than a window: {size / rate:.2f} s, which are {size:,} samples, "
        f"of {of}={length:,} ({length / rate:.2f} s); data.cut=padded goes on with silence."
    )


def resampled(x: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Sounds `[T, C]` at another rate, by a polyphase filter: what is above it is filtered out."""
    from scipy.signal import resample_poly

    ratio = Fraction(to, rate)
    found: np.ndarray = resample_poly(x, ratio.numerator, ratio.denominator, axis=0)
    return found.astype(np.float32)


def without_silence(x: np.ndarray, rate: int) -> np.ndarray:
    """Sounds `[T, C]` without the frames at both ends that are 40 dB below the loudest one."""
    size = max(round(FRAME * rate), 1)
    power = np.square(x, dtype=np.float64).mean(1)
    frames = np.add.reduceat(power, np.arange(0, len(x), size))
    loud = np.flatnonzero(frames > QUIET * frames.max())
    return x[loud[0] * size : (loud[-1] + 1) * size] if len(loud) else x
