"""What a frozen encoder says of a data set, computed once and kept on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusion_jax.system.files import written_whole


def cached_outputs(
    folder: Path,
    key: str,
    encode: Callable[[np.ndarray], np.ndarray],
    num: int,
    chunk: int = 1024,
) -> np.ndarray:
    """The outputs of an encoder for `num` inputs, read from `folder` if they are there.

    They are written as they are made, and read through a memory map, so that neither latents nor
    features of a large data set need to fit in memory.

    Args:
        folder: where such files are kept.
        key: tells this encoder (its weights) and these inputs from all others.
        encode: `indices [chunk] -> outputs [chunk, ...]` of one shape and type; the indices after
            the last input begin again at the first of their chunk.
        num: inputs, 1 or more.
        chunk: inputs at a time, at most.

    Returns:
        `[num, ...]`, not to be written to.
    """
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    try:
        return np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError):  # not there, or cut off
        pass
    chunk, whole = min(chunk, num), None
    with written_whole(path) as part:
        for start in range(0, num, chunk):
            rows = np.arange(start, min(start + chunk, num))
            found = encode(np.resize(rows, chunk))[: len(rows)]
            if whole is None:
                shape = (num, *found.shape[1:])
                whole = np.lib.format.open_memmap(part, "w+", found.dtype, shape)
            whole[rows] = found
        del whole  # writes what is left
    return np.load(path, mmap_mode="r")
