"""What took long to compute, kept on disk."""

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
    *(AttributeError, TypeError, tokenize.TokenError),  # of msgpack, JSON and NumPy's headers
)
"""What reading a file raises that is not there, was cut off or changed."""


def cached(
    folder: Path,
    key: str,
    suffix: str,
    read: Callable[[Path], Result],
    write: Callable[[Path], None],
) -> Result:
    """What `read` finds in the file of `key`, which `write` makes if it is not there and whole.

    All processes of a run call it together, and all write if one has to: they may compute together.
    The key tells this result from all others; `folder` is where such files are kept, with a
    `suffix`. `read` raises one of `DAMAGED` for a file that is not whole; `write` computes the
    result and writes it to a path.
    """
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}{suffix}"
    try:
        found, whole = read(path), True
    except DAMAGED:
        whole = False
    if gather(np.array([whole])).all():
        return found
    with written_whole(path) as part:
        write(part)
    return read(path)


def cached_outputs(
    folder: Path, key: str, encode: Callable[[np.ndarray], np.ndarray], num: int, chunk: int = 1024
) -> np.ndarray:
    """The outputs of an encoder for `num` inputs, 1 or more, `cached` as they are made.

    They are read through a memory map, so that neither latents nor features of a large data set
    need to fit in memory: `[num, ...]`, not to be written to. The key tells this encoder (its
    weights) and these inputs from all others. `encode` is `indices [chunk] -> outputs [chunk, ...]`
    of one shape and type; the indices after the last input begin again at the first of their chunk.
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
