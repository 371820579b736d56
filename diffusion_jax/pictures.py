"""Pictures that a person looks at: grids, strips and animations of uint8 images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

MIN_TILE = 48
"""Pixels: smaller images are enlarged, by whole factors, without smoothing."""


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images uint8 `[N, H, W, C]` in rows of `columns`, on white, each enlarged alike."""
    n, h, w, c = images.shape
    factor = max(1, -(-MIN_TILE // min(h, w)))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    h, w = h * factor + gap, w * factor + gap
    rows = -(-n // columns)
    sheet = np.full((rows * h + gap, columns * w + gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        sheet[y * h + gap : (y + 1) * h, x * w + gap : (x + 1) * w] = image
    return sheet


def as_image(array: np.ndarray) -> Image.Image:
    """A Pillow image of uint8 `[H, W, C]` with 1 (grey) or 3 (RGB) channels."""
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def save_png(path: Path, array: np.ndarray, made_by: Mapping[str, Any]) -> None:
    """Writes uint8 `[H, W, C]`, with `made_by` as JSON in the PNG's text chunk of that name.

    Whole or not at all, since `read_made_by` is asked whether it is there.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text("made_by", json.dumps(made_by))
    part = path.with_suffix(".part")
    as_image(array).save(part, format="png", pnginfo=info)
    part.replace(path)


def read_made_by(path: Path) -> dict[str, Any] | None:
    """What `save_png` was told of the picture at `path`; None if there is none."""
    if not path.exists():
        return None
    made_by: dict[str, Any] = json.loads(Image.open(path).info["made_by"])
    return made_by


def save_gif(path: Path, frames: np.ndarray, columns: int, milliseconds: int = 120) -> None:
    """An animation of `[K, N, H, W, C]`; the last frame stays for two seconds."""
    pictures = [as_image(tile(images, columns)) for images in frames]
    durations = [milliseconds] * (len(pictures) - 1) + [2000]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
    )
