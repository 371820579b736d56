"""Moments of the latents of a data set: encoded once, and cached on disk.

Training on them is the same as encoding in every step: which latents are drawn is decided in the
step, by its key. Mirrored items have moments of their own, as an encoder does not commute with
mirroring.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from diffusion_jax.codecs.latents import CODEC, FromMoments
from diffusion_jax.data import DataError, Dataset, Kind
from diffusion_jax.data.dataset import Split
from diffusion_jax.data.sources import Items, content_hash
from diffusion_jax.models.layout import rows_over
from diffusion_jax.system.cache import cached
from diffusion_jax.system.devices import in_batches, mesh_of
from diffusion_jax.system.progress import stage
from diffusion_jax.types import Params

ENCODING = "encoding images"


class Moments(Kind):
    """Means and log-variances of latents, float32 `[*shape[:-1], 2 C]`."""

    noun: ClassVar[str] = "latents"


@dataclasses.dataclass(frozen=True, eq=False)
class MomentSource:
    """Moments by number, read from a file on access.

    It can be pickled for processes that load data: each opens the file itself.
    """

    # content: a header, JSON as uint8 `.npy`; then the moments of all items, float32 of the
    # header's shape [N, ...], and their labels, int32 [N]
    path: Path
    resident: ClassVar[bool] = False
    varies: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.content[2])

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        """Moments [B, ...], and labels int32 [B]."""
        _, moments, labels = self.content
        return moments[rows], labels[rows]

    @functools.cached_property
    def content(self) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Header, moments and labels, these two through memory maps."""
        with self.path.open("rb") as file:
            header = json.loads(np.load(file).tobytes())
            start, shape = file.tell(), tuple(header["shape"])
            moments = np.memmap(file, np.float32, "r", start, shape)
            labels = np.memmap(file, np.int32, "r", start + moments.nbytes, shape[:1])
            return header, moments, labels

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def encoded(
    dataset: Dataset,
    codec: FromMoments,
    frozen: Mapping[str, Params],
    folder: Path,
    *,
    flip: bool,
    batch_size: int,
    say: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """The training items as moments of their latents, cached in `folder`.

    Args:
        dataset: of items as the codec encodes them.
        codec: of the latents.
        frozen: its parameters, among others.
        folder: of the files, one for each autoencoder and data set, whose digests it has.
        flip: whether mirrored items are needed.
        batch_size: items at a time, over all devices; results do not depend on it.
        say: gets a line before items are encoded.

    Raises:
        DataError: items differ from epoch to epoch, or a file is of other data or of another
            autoencoder.
    """
    split = dataset.splits["train"]
    if split.source.varies:
        raise DataError(
            f"codec.cache=True encodes each item once, and data.name={dataset.name!r} has another "
            "part of it in every epoch: set codec.cache=False"
        )
    kind, num = Moments(codec.moments_shape), len(split)
    about = {
        "autoencoder": digest(codec, frozen),
        "data": dataset.fingerprint,
        "shape": [num, *kind.shape],
    }
    program, own = jax.jit(codec.moments), {CODEC: frozen[CODEC]}
    mesh = mesh_of(own)
    shared = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def items(mirrored: bool) -> Iterator[Items]:
        for start in range(0, num, batch_size):
            rows = np.arange(start, min(start + batch_size, num))
            found, labels = split.gather(np.resize(rows, batch_size))
            if mirrored:
                found = dataset.kind.mirrored(found, np.ones(batch_size, bool))
            x = dataset.kind.decode(found)
            with rows_over(shared):  # where it is traced
                moments = in_batches(program, own, x, batch_size, ENCODING)
            yield moments[: len(rows)], labels[: len(rows)]

    def source(mirrored: bool) -> MomentSource:
        header = {**about, "mirrored": mirrored}

        def write(path: Path) -> None:
            size = 4 * num * int(np.prod(kind.shape)) / 1e6
            say(f"encoding {num:,} {dataset.kind.noun}, once: {size:,.0f} MB in {folder}")
            with stage(ENCODING, num):
                _write(path, header, items(mirrored))

        found = cached(folder, json.dumps(header), ".latents", _read, write)
        there = found.content[0]
        for name, value in header.items():
            if there.get(name) != value:
                raise DataError(
                    f"{found.path} has latents of {name} {there.get(name)}, not {value}: delete "
                    "it, and they are encoded again"
                )
        return found

    train = Split(source(False), split.captions, source(True) if flip else None)
    return dataclasses.replace(dataset, kind=kind, splits={"train": train})


def _write(path: Path, header: Mapping[str, Any], items: Iterable[Items]) -> None:
    """Writes the content of a `MomentSource`."""
    labels = []
    with path.open("wb") as file:
        np.save(file, np.frombuffer(json.dumps(header).encode(), np.uint8))
        for moments, of_each in items:
            file.write(moments.tobytes())
            labels.append(of_each)
        file.write(np.concatenate(labels).astype(np.int32).tobytes())


def _read(path: Path) -> MomentSource:
    found = MomentSource(path)
    _ = found.content  # raises for a file that is missing or cut short
    return found


def digest(codec: FromMoments, frozen: Mapping[str, Params]) -> str:
    """A short hash of an autoencoder, by its network and its parameters."""
    found = jax.device_get(frozen[CODEC])
    return content_hash(repr(codec.network), *jax.tree.leaves(found))
