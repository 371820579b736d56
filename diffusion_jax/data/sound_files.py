"""Recordings of users and packages: from files to int16 of one rate, loudness and length."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sound import Sound, of_channels
from diffusion_jax.data.sound_page import level_gain
from diffusion_jax.system.files import in_store
from diffusion_jax.system.sounds import FULL
from diffusion_jax.system.stores import StoreError
from diffusion_jax.system.texts import shown

SUFFIXES = ".wav", ".flac", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".mp3", ".g722"
G722_RATE, G722_BITS = 16_000, 64_000
FRAME = 0.02  # seconds over which the level is taken, where silence is cut off
QUIET = 1e-4  # of the power of the loudest frame, -40 dB: less is silence


class Look(NamedTuple):
    """Properties of a recording, from its head."""

    rate: int
    channels: int


@dataclass(frozen=True)
class Preparation:
    """How recordings are prepared; a part of the fingerprint of the data."""

    rate: int  # Hz, to which they are resampled
    channels: int  # 1 mixes all of them
    loudness: float  # dB, root mean square of each whole recording; 0: as recorded
    cut: str  # see `data.cut`
    length: int  # of a window in samples


def look_at(path: Path) -> Look:
    """Reads the head of a recording.

    Raises:
        DataError: `FILE cannot be read: why`.
    """
    if path.suffix.lower() == ".g722":
        return Look(G722_RATE, 1)
    with _opened(path) as file:
        return Look(file.samplerate, file.channels)


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Reads a recording as float32 `[T, C]` and its rate; integers of 16 bits are exact.

    Raises:
        DataError: `FILE cannot be read: why`.
    """
    if path.suffix.lower() == ".g722":
        return _g722(path), G722_RATE
    with _opened(path) as file:
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except RuntimeError as error:  # of libsndfile
            raise _unreadable(path, "it is damaged") from error
        rate = file.samplerate
    if not len(samples):
        raise _unreadable(path, "it has no samples")
    if not np.isfinite(samples).all():
        raise _unreadable(path, "some of its samples are NaN or infinite")
    return samples, rate


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Context: a file opened by soundfile. All recordings but G.722 are opened here."""
    import soundfile

    try:
        file = io.BytesIO(path.read_bytes()) if in_store(path) else path.open("rb")
    except StoreError:
        raise
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    with file:
        try:
            sound = soundfile.SoundFile(file)
        except RuntimeError as error:  # of libsndfile
            file.seek(0)
            why = "it is no sound" if file.read(1) else "it is empty"
            raise _unreadable(path, why) from error
        with sound:
            yield sound


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(f"{shown(path)} cannot be read: {why}")


def _g722(path: Path) -> np.ndarray:
    """A recording in G.722 (ITU-T, 64 kbit/s), which has no head, as float32 `[T, 1]`."""
    try:
        from G722 import G722
    except ImportError as error:
        raise DataError(
            f"{shown(path)} is in G.722, which needs `pip install G722` to be read."
        ) from error
    data = path.read_bytes()
    if not data:
        raise _unreadable(path, "it is empty")
    decoded = np.array(G722(G722_RATE, G722_BITS).decode(data), np.float32)
    return decoded[:, None] / np.float32(FULL)


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


def open_sound(path: Path, kind: Sound) -> np.ndarray:
    """The beginning of a recording as an item of a kind, int16 `[T, C]`.

    Nothing is resampled, mixed or padded: a model knows its own rate and channels only.

    Raises:
        DataError: the file cannot be read, or has another rate, other channels, or too few samples.
    """
    x, rate = read_sound(path)
    length, channels = kind.shape
    why = ""
    if rate != kind.rate:
        why = f"is at {rate:,} Hz: resample it"
    elif x.shape[1] != channels:
        why = f"is in {of_channels(x.shape[1])}, and must be in {of_channels(channels)}"
    elif len(x) < length:
        why = f"has {len(x):,} of the {length:,} samples that are needed"
    if why:
        raise DataError(f"{shown(path)} does not fit a model of {kind.words}; it {why}.")
    return kind.encode(x[:length])
