"""WAV files of 16 bits, with a passport in their RIFF INFO chunk."""

import io
import json
import struct
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.system.files import write_whole

FULL = 2**15
"""Steps of 16 bits in an amplitude of 1."""
HEAD = struct.Struct("<4sI")  # name and size of a chunk


def wav(samples: np.ndarray, rate: int, made_by: Mapping[str, Any] | None = None) -> bytes:
    """A WAV of samples int16 `[T, C]`, with `made_by` as JSON in the comment (ICMT), if given.

    The chunk of comments is written here: libsndfile drops those of more than 16 KiB.
    """
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.ascontiguousarray(samples, "<i2").tobytes())
    if made_by is None:
        return file.getvalue()
    body = file.getvalue()[HEAD.size :] + _chunk(
        b"LIST", b"INFO" + _chunk(b"ICMT", json.dumps(made_by).encode() + b"\0")
    )
    return HEAD.pack(b"RIFF", len(body)) + body


def _chunk(name: bytes, data: bytes) -> bytes:
    return HEAD.pack(name, len(data)) + data + b"\0" * (len(data) % 2)


def _chunks(data: bytes, start: int) -> dict[bytes, bytes]:
    """The chunks of RIFF from `start` on; raises a ValueError if the last one is cut off."""
    found = {}
    while start + HEAD.size <= len(data):
        name, size = HEAD.unpack_from(data, start)
        start += HEAD.size
        found[name] = data[start : start + size]
        if len(found[name]) < size:
            raise ValueError(f"chunk {name!r} is cut off")
        start += size + size % 2
    return found


def save_wav(path: Path, samples: np.ndarray, rate: int, made_by: Mapping[str, Any]) -> None:
    """Writes samples int16 `[T, C]` as `wav` does, whole or not at all."""
    write_whole(path, wav(samples, rate, made_by))


def read_made_by(path: Path) -> dict[str, Any] | None:
    """The `made_by` of the WAV at `path`; None if the file is missing or incomplete."""
    try:
        data = path.read_bytes()
        if HEAD.unpack_from(data)[1] + HEAD.size != len(data):
            return None
        info = _chunks(_chunks(data, 12)[b"LIST"], 4)
        made_by: dict[str, Any] = json.loads(info[b"ICMT"].rstrip(b"\0"))
    except (KeyError, OSError, ValueError, struct.error):
        return None
    return made_by
