"""Cache on disk for results that take long to compute."""

import functools
import hashlib
import tokenize
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from diffusion_jax.system.devices import gather
from diffusion_jax.system.files import written_whole

Result = TypeVar("Result")
DAMAGED = (
    *(FileNotFoundError, ValueError, EOFError, KeyError, zipfile.BadZipFile),
    *(AttributeError, TypeError, tokenize.TokenError),  # from msgpack, JSON and NumPy headers
)
"""Exceptions raised when reading a missing, truncated or changed file."""


def cached(
    folder: Path,
    key: str,
    suffix: str,
    read: Callable[[Path], Result],
    write: Callable[[Path], None],
    together: bool = True,
) -> Result:
    """Reads a result with `read` from the file of `key`, after `write` has made it if necessary.

    All processes of a run call this together, and all write if one has to, so that they can compute
    together; each is on its own if not `together`. `key` identifies the result; `folder` contains
    such files, with a `suffix`. `read` raises one of `DAMAGED` for an incomplete file; `write`
    computes the result and writes it to a path.
    """
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}{suffix}"
    try:
        found, whole = read(path), True
    except DAMAGED:
        whole = False
    if gather(np.array([whole])).all() if together else whole:
        return found
    with written_whole(path) as part:
        write(part)
    return read(path)


def cached_outputs(
    folder: Path, key: str, encode: Callable[[np.ndarray], np.ndarray], num: int, chunk: int = 1024
) -> np.ndarray:
    """The outputs of an encoder for `num` >= 1 inputs, `cached`.

    They are read through a read-only memory map `[num, ...]`, so that latents or features of a
    large data set need not fit in memory. `key` identifies the encoder (its weights) and the
    inputs. `encode` is `indices [chunk] -> outputs [chunk, ...]` with a fixed shape and dtype; the
    last chunk is filled up by repeating its indices from the first.
    """

    def write(path: Path) -> None:
        size, whole = min(chunk, num), None
        for start in range(0, num, size):
            rows = np.arange(start, min(start + size, num))
            found = encode(np.resize(rows, size))[: len(rows)]
            if whole is None:
                shape = (num, *found.shape[1:])
                whole = np.lib.format.open_memmap(path, "w+", found.dtype, shape)
            whole[rows] = found

    return cached(folder, key, ".npy", functools.partial(np.load, mmap_mode="r"), write)
