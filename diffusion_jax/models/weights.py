"""Published weights: their files, and the tensors in them that are a network's parameters.

A format is a function that names the tensor of each of our parameters, so that one table serves
reading (`variables_from`) and writing (`tensors_of`). No torch is needed.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.models.torch_files import WeightsError, read_pickled
from diffusion_jax.system.devices import put
from diffusion_jax.system.files import local_copy, written_whole

LEAVES = {
    **{"kernel": "weight", "scale": "weight", "embedding": "weight"},
    **{"mean": "running_mean", "var": "running_var"},
}
"""Torch's names of a layer's parameters, where they differ from ours."""
MAPPED_BYTES = 2**28
PICKLE = "weights that torch.save wrote"
UNREADABLE = ("F8_", "F4", "F6_")
"""Beginnings of safetensors' names of types that numpy lacks."""


class Stored(NamedTuple):
    """The tensor of a file that holds one of our parameters."""

    name: str
    axes: tuple[int, ...]  # transposes the file's axes to ours; axes of size 1 may be left over
    shape: tuple[int, ...]  # in the file

    def read(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The parameter, of our `shape`."""
        return tensor.transpose(self.axes).reshape(shape)

    def written(self, value: np.ndarray) -> np.ndarray:
        """The tensor of the file: the inverse of `read`."""
        turned = value.reshape([self.shape[axis] for axis in self.axes])
        return turned.transpose(np.argsort(self.axes))


Format = Callable[[tuple[str, ...], Any], Stored]
"""Gives what the file calls a parameter, by its path in our tree (without the name of the
collection) and its shape, as anything with `shape`."""


def like_torch(path: tuple[str, ...], leaf: Any) -> Stored:
    """The format of networks whose modules here have the names of the file."""
    return in_layer(".".join(path[:-1]), path[-1], leaf)


def in_layer(layer: str, name: str, leaf: Any, spatial: int | None = None) -> Stored:
    """The tensor of a layer of torch, for its parameter `name` here, such as 'kernel'.

    Torch's kernels are [D, C, K, K] and [D, C], ours [K, K, C, D] and [C, D]. With `spatial` axes
    the file's are those of a convolution, also where ours, then of size 1, is a dense layer's.
    """
    shape = tuple(leaf.shape)
    axes = tuple(range(len(shape)))
    if name == "kernel":
        shape = (1,) * (0 if spatial is None else spatial + 2 - len(shape)) + shape
        shape = (shape[-1], shape[-2], *shape[:-2])
        axes = (*range(2, len(shape)), 1, 0)
    named = LEAVES.get(name, name)
    return Stored(f"{layer}.{named}" if layer else named, axes, shape)


class _Tensors(Mapping[str, np.ndarray]):
    """The tensors of a local `.safetensors` file, each read when it is asked for.

    The file is mapped into memory, anew after every `MAPPED_BYTES` read: until then, what was read
    counts as memory of the process.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._open = functools.partial(safe_open, path, "numpy")
        self._file, self._read = self._open(), 0
        self._names = dict.fromkeys(self._file.keys())
        for name in self._names:
            kind = self._file.get_slice(name).get_dtype()
            if kind.startswith(UNREADABLE):
                raise WeightsError(f"{name!r} has dtype {kind}, which numpy lacks")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        if self._read > MAPPED_BYTES:
            self._file, self._read = self._open(), 0
        tensor: np.ndarray = self._file.get_tensor(name)  # bfloat16 is kept
        self._read += tensor.nbytes
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_tensors(path: Path) -> Mapping[str, np.ndarray]:
    """Reads a state dict written by `torch.save`, or a `.safetensors` file: name to array.

    The tensors of a `.safetensors` file are read one by one when they are asked for, so that large
    files need not be in memory twice.

    Raises:
        WeightsError: one sentence that names the file and what is wrong in it.
    """
    if path.suffix == ".safetensors":
        with _reading(path, "safetensors") as here:
            tensors = _Tensors(here)
            return tensors if here == path else dict(tensors)  # a copy is not kept
    with _reading(path, PICKLE) as here:
        return _state_dict(read_pickled(here))


def unpickled(path: Path) -> Any:
    """What `torch.save` wrote, if it is made of arrays, numbers, texts, lists and dicts.

    Raises:
        WeightsError: one sentence that names the file and what else is in it.
    """
    with _reading(path, PICKLE) as here:
        return read_pickled(here)


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[Path]:
    """A local copy of a file, whose errors become a `WeightsError` that names it."""
    try:
        with local_copy(path) as here:
            yield here
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except OSError:
        raise
    except Exception as error:  # truncated or foreign files raise all kinds
        raise WeightsError(
            f"{path}: not a file of {kind}, or one that was cut short "
            f"({type(error).__name__}: {error})"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a `.safetensors` file says of itself; nothing for other files."""
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return {}
    with local_copy(path) as here, safe_open(here, "numpy") as file:
        return dict(file.metadata() or {})


def _state_dict(found: Any) -> dict[str, np.ndarray]:
    """Checks that what was unpickled are tensors by name."""
    if not isinstance(found, dict):
        raise WeightsError(f"it holds a {type(found).__name__}, not tensors by name")
    for name, tensor in found.items():
        if not isinstance(tensor, np.ndarray):
            raise WeightsError(f"{name!r} is a {type(tensor).__name__}, not a tensor")
    return {str(name): tensor for name, tensor in found.items()}


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], **metadata: str) -> None:
    """Writes a `.safetensors` file, whole or not at all, that loaders for torch accept."""
    from safetensors.numpy import save_file

    # `save_file` writes the bytes of an array as they are in memory, whatever its strides.
    whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with written_whole(path) as part:
        part.touch()
        mode = part.stat().st_mode  # as other files have it; `save_file` makes one for the owner
        save_file(whole, part, {"format": "pt", **metadata})
        part.chmod(mode)


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
    layout: Format = like_torch,
) -> Any:
    """Variables of a network from the tensors of its published weights, float32.

    `template` is a tree of shapes, as from `jax.eval_shape` of `net.init`; a parameter whose shape
    has a `sharding` is put there as soon as it is read, and others are NumPy's. `path` and `whose`,
    the network's name, are for errors. Every tensor of the file must be used, except those for
    which `unused` is true, and every shape is checked. Tensors of float16 and bfloat16 become
    float32 here, once and exactly.

    Raises:
        WeightsError: one sentence that names the file and the first tensor that is wrong.
    """
    used = set()

    def fill(keys: Any, leaf: jax.ShapeDtypeStruct) -> Any:
        stored = layout(_path(keys), leaf)
        name = stored.name
        words = f"{path}: {whose} has a tensor {name} {list(map(int, stored.shape))}"
        if name not in tensors:
            raise WeightsError(f"{words}, which the file lacks")
        tensor = tensors[name]
        if tensor.shape != stored.shape:
            raise WeightsError(f"{words}, which in the file is {list(tensor.shape)}")
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise WeightsError(f"{words}, which in the file has dtype {tensor.dtype}")
        used.add(name)
        value = np.asarray(stored.read(tensor, leaf.shape), np.float32, order="C")
        with np.errstate(all="ignore"):
            total = value.sum()  # quicker than all, and without more memory
        if not np.isfinite(total) and not np.isfinite(value).all():
            raise WeightsError(
                f"{words}, which in the file is not finite: it was damaged, or made by a "
                "conversion to half precision in which it overflowed"
            )
        return put(value, leaf.sharding) if getattr(leaf, "sharding", None) else value

    variables = jax.tree_util.tree_map_with_path(fill, template)
    for name in tensors:
        if name not in used and not unused(name):
            raise WeightsError(
                f"{path}: the file's tensor {name} {list(tensors[name].shape)} is not part of "
                f"{whose}"
            )
    return variables


def tensors_of(
    variables: Any, layout: Format = like_torch, dtype: Any = np.float32
) -> dict[str, np.ndarray]:
    """The tensors of a file with these variables: the inverse of `variables_from`.

    A `dtype` of float16 or bfloat16 rounds; variables that were read from such a file get its bytes
    again.
    """
    found: dict[str, np.ndarray] = {}

    def write(keys: Any, value: Any) -> None:
        stored = layout(_path(keys), value)
        if stored.name in found:
            raise ValueError(f"the layout gives two parameters the name {stored.name}")
        found[stored.name] = stored.written(np.asarray(value)).astype(dtype, copy=False)

    jax.tree_util.tree_map_with_path(write, variables)
    return found


def names_of(template: Any, layout: Format) -> set[str]:
    """The names of all tensors of a file with the variables of these shapes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(template)
    return {layout(_path(keys), leaf).name for keys, leaf in leaves}


def _path(keys: Any) -> tuple[str, ...]:
    """A parameter's path in the tree, without the name of its collection."""
    return tuple(key.key for key in keys[1:])


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """The first 12 digits of the file's SHA-256."""
    return sha256(path)[:12]


def packaged_file(package: str, name: str) -> Path | None:
    """A file of the PyPI package `name==version`, if installed; nothing is imported."""
    try:
        found = importlib.metadata.distribution(package.split("==")[0])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    files = (file for file in found.files or () if file.name == name)
    return next((Path(str(file.locate())) for file in files), None)
