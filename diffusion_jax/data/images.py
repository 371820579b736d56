"""Images: pictures on disk to uint8 arrays of one shape, and uint8 to floats and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageOps

from diffusion_jax.data.kind import Kind
from diffusion_jax.system.files import each_file
from diffusion_jax.system.pictures import captioned, opened, save_png, tile


class Images(Kind):
    """Images uint8 `[H, W, C]`; `x` is in [-1, 1]."""

    noun: ClassVar[str] = "images"
    stored: ClassVar[type] = np.uint8
    levels: ClassVar[int] = 256
    limit: ClassVar[float | None] = 1.0

    def decode(self, items: Any) -> np.ndarray:
        return to_float(items)

    def encode(self, x: Any) -> np.ndarray:
        return to_uint8(x)

    def mirrored(self, items: np.ndarray, coins: np.ndarray) -> np.ndarray:
        """Left to right."""
        items[coins] = items[coins, :, ::-1]
        return items

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """A PNG each."""
        whose = {
            folder / f"{number:06d}.png": (image, about)
            for number, image, about in zip(index, items, made_by, strict=True)
        }
        each_file(lambda path: save_png(path, *whose[path]), list(whose))

    def sheet(
        self,
        items: np.ndarray,
        columns: int,
        texts: Sequence[str] = (),
        marked: Sequence[bool] = (),
    ) -> np.ndarray:
        """Row after row, each behind its text."""
        return captioned(items, texts, columns, marked) if len(texts) else tile(items, columns)

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        """A row for each of the first images, noise on the left."""
        few = states[:, :columns].swapaxes(0, 1)
        return tile(few.reshape(-1, *few.shape[2:]), columns=few.shape[1])


def to_float(images: Any) -> np.ndarray:
    """Maps uint8 in 0..255 to float32 in [-1, 1], any shape; the inverse of `to_uint8`."""
    floats = np.asarray(images).astype(np.float32)
    floats /= 127.5
    floats -= 1.0
    return floats


def to_uint8(images: Any) -> np.ndarray:
    """Maps floats in [-1, 1], any shape, to uint8 in 0..255: clipped, then rounded."""
    floats = np.asarray(images, np.float32)
    return np.rint((np.clip(floats, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` pixels with antialiasing and crops the centre square."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    shape = max(size, round(width * scale)), max(size, round(height * scale))
    image = image.resize(shape, Image.Resampling.LANCZOS)
    left, top = (shape[0] - size) // 2, (shape[1] - size) // 2
    return image.crop((left, top, left + size, top + size))


def resize_array(image: np.ndarray, size: int) -> np.ndarray:
    """`resize_and_crop` for uint8 [H, W, C]; returns uint8 [size, size, C]; 0 changes nothing."""
    if size == 0 or image.shape[:2] == (size, size):
        return image
    channels = [resize_and_crop(Image.fromarray(c), size) for c in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(c) for c in channels], axis=-1)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turns a picture upright and into RGB: grey is repeated, alpha is laid on white.

    Raises:
        ValueError: for 32-bit pixels, whose range no file states.
    """
    image = ImageOps.exif_transpose(image)
    _check_range(image)
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_image(path: Path, size: int) -> np.ndarray:
    """Reads a picture as uint8 [H, W, 3], or [size, size, 3] if `size` is not 0."""
    with opened(path) as image:
        rgb = to_rgb(image)
        return np.asarray(resize_and_crop(rgb, size) if size else rgb)


def open_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads a picture as uint8 of a `shape` [H, W, C], resized and cropped, grey where C is 1."""
    height, width, channels = shape
    image = read_image(path, max(height, width))
    top, left = (len(image) - height) // 2, (len(image) - width) // 2
    image = image[top : top + height, left : left + width]
    if channels == 1:
        image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return image


def upright_size(path: Path) -> tuple[int, int]:
    """The (height, width) of a picture once upright, after decoding all of it.

    A header alone does not show that a file was cut short. JPEG is decoded at an eighth of its
    size, which reads every byte at a fraction of the time.

    Raises:
        Exception: whatever Pillow raises for a file that it cannot decode.
    """
    with opened(path) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # orientations 5 to 8 lie on their side
            width, height = height, width
        image.draft(None, (1, 1))
        image.load()
        _check_range(image)
    return height, width


def _check_range(image: Image.Image) -> None:
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known range")
