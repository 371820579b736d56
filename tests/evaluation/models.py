"""Models for testing evaluators, and the images that evaluators write."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion_jax.data import Dataset
from diffusion_jax.evaluation.model import Chunk, Model
from diffusion_jax.generation.generator import Generator
from diffusion_jax.generation.labels import by_label
from diffusion_jax.system.pictures import MIN_TILE


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
