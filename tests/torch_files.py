"""Files in torch's two formats, written without torch, also such as torch would not write."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

from diffusion_jax.models.torch_files import LEGACY_MAGIC, LEGACY_VERSION


class Asking:
    """Pickled as a call of a function by its module and name."""

    def __init__(self, module, name, *args):
        self.module, self.name, self.args = module, name, args

    def __reduce__(self):
        raise NotImplementedError  # `Pickler` below writes it


class Pickler(pickle._Pickler):
    """Writes calls of what need not be importable, and persistent ids."""

    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Asking):
            return super().save(obj, save_persistent_id)
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        if obj.args:
            self.save(obj.args)
            self.write(pickle.REDUCE)

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Stored) else None


class Stored:
    """A persistent id."""

    def __init__(self, kind="FloatStorage", key="0", size=6, view=None):
        self.pid = ("storage", Asking("torch", kind), key, "cpu", size, view)


def pickled(obj):
    out = io.BytesIO()
    Pickler(out, 2).dump(obj)
    return out.getvalue()


def tensor(shape=(2, 3), strides=(3, 1), offset=0, stored=None):
    rebuild = ("torch._utils", "_rebuild_tensor_v2")
    return Asking(*rebuild, stored or Stored(), offset, shape, strides, False, {})


def write_zip(path, state, data=None, **entries):
    data = np.arange(6, dtype=np.float32).tobytes() if data is None else data
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled(state))
        archive.writestr("a/data/0", data)
        for name, value in entries.items():
            archive.writestr(f"a/{name}", value)
    return path


def write_legacy(path, state, size=6, little=True, values=None):
    head = [LEGACY_MAGIC, LEGACY_VERSION, {"little_endian": little}, state, ["0"]]
    data = (np.arange(size, dtype=np.float32) if values is None else values).tobytes()
    path.write_bytes(b"".join(map(pickled, head)) + size.to_bytes(8, "little") + data)
    return path


def write_arrays(path, arrays):
    """The legacy format with arrays float32 by name, one behind the other in one storage."""
    values = np.concatenate([array.ravel() for array in arrays.values()])
    state, offset, stored = OrderedDict(), 0, Stored(size=len(values))
    for name, array in arrays.items():
        strides = tuple(step // array.itemsize for step in array.strides)
        state[name] = tensor(array.shape, strides, offset, stored)
        offset += array.size
    return write_legacy(path, state, len(values), values=values)
