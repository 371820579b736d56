"""What restoring an item leaves, and its pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from diffusion_jax.system.pictures import save_png, tile

SHOWN = 6
"""Samples on a sheet or a page."""
CELL = 256
"""Largest side of a picture on a sheet, in pixels."""
FULL = 0.5
"""Standard deviation that is white in `spread.png`, a quarter of the range [-1, 1]."""


class RestoredItem(NamedTuple):
    """An item and what it could have been, as `x`; its shape is that of the kind."""

    name: str  # of the file
    given: np.ndarray  # what is seen of it, which for pictures may be of another size
    samples: np.ndarray  # `[K, *shape]`
    mean: np.ndarray  # `[*shape]`
    spread: np.ndarray  # `[*shape]`, standard deviation
    known: np.ndarray | None  # where it is seen, `[..., 1]`, if that is a mask
    original: np.ndarray | None  # `[*shape]`, if it is there


def save_pictures(
    folder: Path,
    found: RestoredItem,
    encode: Callable[[np.ndarray], np.ndarray],
    made_by: Mapping[str, Any],
) -> None:
    """Mean, spread, what was given, the mask if there is one, and a sheet, as PNG."""
    spread = np.clip(2 * found.spread.mean(-1, keepdims=True) / FULL - 1, -1, 1)
    pictures = {"mean": found.mean, "spread": spread, "given": found.given}
    if found.known is not None:
        pictures["mask"] = 1 - 2 * found.known
    for name, each in pictures.items():
        save_png(folder / f"{name}.png", encode(each), {**made_by, "white": FULL})
    cells = [found.given, *found.samples[:SHOWN], found.mean, spread]
    cells += [] if found.original is None else [found.original]
    shape = found.mean.shape
    sheet = tile(np.stack([_cell(encode(cell), shape) for cell in cells]), len(cells))
    save_png(folder / "sheet.png", sheet, made_by)


def _cell(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A picture uint8 on a sheet: with the channels of `shape`, its longer side `CELL` at most."""
    if image.shape[-1] < shape[-1]:
        image = image.repeat(shape[-1], -1)
    height, width = (side * min(CELL, max(shape[:2])) // max(shape[:2]) for side in shape[:2])
    if image.shape[:2] == (height, width):
        return image
    grey = shape[-1] == 1
    resized = Image.fromarray(image[..., 0] if grey else image).resize((width, height))
    return np.asarray(resized).reshape(height, width, shape[-1])
