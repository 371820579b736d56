"""Models for testing evaluators, and the images that evaluators write."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from diffusion_jax.data import Dataset, Kind
from diffusion_jax.evaluation.model import Chunk, Model
from diffusion_jax.generation.generator import Generator
from diffusion_jax.generation.labels import by_label
from diffusion_jax.system.pictures import MIN_TILE


@dataclasses.dataclass(frozen=True)
class Pieces(Kind):
    """A kind of tokens."""

    pieces: tuple[str, ...]
    noun: ClassVar[str] = "texts"
    stored: ClassVar[type] = np.int32
    dtype: ClassVar[type] = np.int32

    def text(self, items: np.ndarray) -> list[str]:
        return ["".join(self.pieces[token] for token in row) for row in items]

    def lengths(self, items: np.ndarray) -> np.ndarray:
        return np.array([len(text) for text in self.text(items)])


def model_of(
    dataset: Dataset,
    generator: Generator | None = None,
    params: Any = None,
    *,
    chunks: Iterable[Chunk] = (),
    passport: Mapping[str, Any] | None = None,
    folder: Path = Path("none"),
) -> Model:
    """A model with the samples `chunks`."""

    def drawn(*_: Any) -> Any:
        raise AssertionError("nothing else is drawn or read")

    cond_of = by_label(dataset.num_classes)
    return Model(
        *(dataset, generator, params, {}, cond_of, drawn, drawn, lambda: chunks),
        passport=passport or {},
        seed=0,
        batch_size=200,
        folder=folder,
    )


def pictures_of(path: Path, side: int) -> np.ndarray:
    """The grey images `[N, side, side, 1]` of a sheet, row by row."""
    sheet, size = np.asarray(Image.open(path)), -(-MIN_TILE // side) * side
    rows, columns = ((length - 1) // (size + 1) for length in sheet.shape)
    found = sheet[1:, 1:].reshape(rows, size + 1, columns, size + 1)[:, :size, :, :size]
    found = found.swapaxes(1, 2).reshape(-1, size, size, 1)
    return found[:, :: size // side, :: size // side]
