"""Reading of recordings: WAV, FLAC, OGG, MP3 and AIFF by libsndfile, and G.722."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.system.files import in_store
from diffusion_jax.system.sounds import FULL
from diffusion_jax.system.stores import StoreError
from diffusion_jax.system.texts import shown

SUFFIXES = ".wav", ".flac", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".mp3", ".g722"
G722_RATE, G722_BITS = 16_000, 64_000


class Look(NamedTuple):
    """Properties of a recording, from its head."""

    rate: int
    channels: int


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
