"""Reading torch's two file formats without torch.

A `.pth` file is a pickle, which could run arbitrary code. The unpickler here builds tensors, their
storages and ordered dicts, and refuses everything else.
"""

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class WeightsError(ValueError):
    """A file does not hold the requested weights; the message names the file and the tensor."""


class _Storage(NamedTuple):
    """A flat array, filled when its bytes are read; tensors are views of it."""

    values: np.ndarray

    def fill(self, data: bytes) -> None:
        self.values[:] = np.frombuffer(data, self.values.dtype, len(self.values))


def _tensor(
    storage: _Storage, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any
) -> np.ndarray:
    """A view of a storage, in units of elements, checked to lie inside of it.

    The remaining arguments are requires_grad and hooks, which arrays do not have.
    """
    flat = storage.values
    if min((offset, *shape, *strides)) < 0:
        raise WeightsError(f"a tensor has shape {shape}, strides {strides}")
    if math.prod(shape) == 0:
        return np.zeros(shape, flat.dtype)
    if offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) >= len(flat):
        raise WeightsError(f"a tensor {list(shape)} reaches beyond its storage")
    steps = [s * flat.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)


class _Unpickler(pickle.Unpickler):
    """Builds only ordered dicts, storages (kept by key) and tensors."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name])
        raise WeightsError(f"it contains {module}.{name}, which is not part of a tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(view):
            raise pickle.UnpicklingError("a persistent id that is no storage")
        return self.storages.setdefault(str(key), _Storage(np.zeros(int(size), dtype)))


def read_pickled(path: Path) -> Any:
    """What `torch.save` wrote: arrays and dicts of them, in either format.

    Raises:
        WeightsError: it holds something else. Truncated and foreign files raise all kinds.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        file.seek(0)
        return _read_zip(file) if zipped else _read_legacy(file)


def _read_zip(file: BinaryIO) -> Any:
    """Unpickles `*/data.pkl` and reads the storages `*/data/KEY`."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (pickled,) = (name for name in names if name.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise WeightsError("it was written on a big-endian machine")
        with archive.open(pickled) as entry:
            reader = _Unpickler(entry)
            found = reader.load()
        for key, storage in reader.storages.items():
            storage.fill(archive.read(f"{root}data/{key}"))
        return found


def _read_legacy(file: BinaryIO) -> Any:
    """Reads the older format: five pickles, then size and bytes of each storage."""
    magic, version = _Unpickler(file).load(), _Unpickler(file).load()
    if (magic, version) != (LEGACY_MAGIC, LEGACY_VERSION):
        raise pickle.UnpicklingError("another magic number")
    if not _Unpickler(file).load()["little_endian"]:
        raise WeightsError("it was written on a big-endian machine")
    reader = _Unpickler(file)
    found = reader.load()
    for key in _Unpickler(file).load():
        storage, (size,) = reader.storages[key], struct.unpack("<q", file.read(8))
        if size != len(storage.values):
            raise WeightsError(f"storage {key} has {size} elements, not {len(storage.values)}")
        storage.fill(file.read(storage.values.nbytes))
    return found
