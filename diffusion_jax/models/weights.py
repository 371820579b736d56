"""Reading published weights without torch: safetensors and torch's two file formats.

A `.pth` file is a pickle, which could run arbitrary code. The unpickler here builds tensors, their
storages and ordered dicts, and refuses everything else.
"""

import hashlib
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.system.files import local_copy

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
LEAVES = {
    **{"kernel": "weight", "scale": "weight", "embedding": "weight"},
    **{"mean": "running_mean", "var": "running_var"},
}
"""Torch's names of a layer's parameters, where they differ from ours."""


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


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict written by `torch.save`, or a `.safetensors` file: name to array.

    Raises:
        WeightsError: one sentence that names the file and what is wrong in it.
    """
    kind = "safetensors" if path.suffix == ".safetensors" else "weights that torch.save wrote"
    try:
        with local_copy(path) as here:
            return _read_safetensors(here) if kind == "safetensors" else _read_pickled(here)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except OSError:
        raise
    except Exception as error:  # truncated or foreign files raise all kinds
        raise WeightsError(
            f"{path}: not a file of {kind}, or one that was cut short "
            f"({type(error).__name__}: {error})"
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors; bfloat16 is kept, and types that numpy lacks are refused."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _read_pickled(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        file.seek(0)
        found = _read_zip(file) if zipped else _read_legacy(file)
    if not isinstance(found, dict):
        raise WeightsError(f"it holds a {type(found).__name__}, not tensors by name")
    for name, tensor in found.items():
        if not isinstance(tensor, np.ndarray):
            raise WeightsError(f"{name!r} is a {type(tensor).__name__}, not a tensor")
    return {str(name): tensor for name, tensor in found.items()}


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


def load_variables(
    path: Path, template: Any, whose: str, unused: Callable[[str], bool] = lambda name: False
) -> Any:
    """`variables_from` the tensors of a file; raises its errors and those of `read_tensors`."""
    return variables_from(read_tensors(path), path, template, whose, unused)


def variables_from(
    tensors: Mapping[str, np.ndarray],
    path: Path,
    template: Any,
    whose: str,
    unused: Callable[[str], bool] = lambda name: False,
) -> Any:
    """Variables of a network whose modules are named as in the file of its published weights.

    `template` is a tree of shapes, as from `jax.eval_shape` of `net.init`; `path` and `whose`, the
    network's name, are for errors. Every tensor of the file must be used, except those for which
    `unused` is true, and every shape is checked.

    Raises:
        WeightsError: one sentence that names the file and the first tensor that is wrong.
    """
    used = set()

    def fill(keys: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name, axes = published(keys, leaf)
        shape = tuple(np.array(leaf.shape, int)[np.argsort(axes)])
        words = f"{path}: {whose} has a tensor {name} {list(map(int, shape))}"
        if name not in tensors:
            raise WeightsError(f"{words}, which the file lacks")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise WeightsError(f"{words}, which in the file is {list(tensor.shape)}")
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise WeightsError(f"{words}, which in the file has dtype {tensor.dtype}")
        used.add(name)
        return np.ascontiguousarray(tensor.transpose(axes), np.float32)

    variables = jax.tree_util.tree_map_with_path(fill, template)
    for name, tensor in tensors.items():
        if name not in used and not unused(name):
            raise WeightsError(
                f"{path}: the file's tensor {name} {list(tensor.shape)} is not part of {whose}"
            )
    return variables


def published(keys: Any, leaf: Any) -> tuple[str, tuple[int, ...]]:
    """A variable's name in torch, and the transposition of the tensor's axes to ours.

    Torch's kernels are [D, C, K, K] and [D, C], ours [K, K, C, D] and [C, D].
    """
    *modules, last = (key.key for key in keys[1:])  # without the name of the collection
    axes = tuple(range(leaf.ndim))
    if last == "kernel":
        axes = (*axes[2:], 1, 0)
    return ".".join((*modules, LEAVES.get(last, last))), axes


def file_digest(path: Path) -> str:
    """The first 12 digits of the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def packaged_file(package: str, name: str) -> Path | None:
    """A file of the PyPI package `name==version`, if installed; nothing is imported."""
    try:
        found = metadata.distribution(package.split("==")[0])
    except (metadata.PackageNotFoundError, ValueError):
        return None
    files = (file for file in found.files or () if file.name == name)
    return next((Path(str(file.locate())) for file in files), None)
