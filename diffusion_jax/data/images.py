"""Images: from files to uint8 arrays of one shape, and from uint8 to floats and back."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.restored import RestoredItem, save_pictures
from diffusion_jax.metrics.fidelity import psnr
from diffusion_jax.system.files import each_file, in_store
from diffusion_jax.system.pictures import captioned, opened, save_png, tile
from diffusion_jax.system.stores import StoreError
from diffusion_jax.system.texts import shown

MAX_PIXELS = 2**28  # of an image to read: 1 GiB once decoded
Image.MAX_IMAGE_PIXELS = None  # replaced by that limit: large photographs exceed Pillow's
# These are about parts of a file that are not used, and do not name the file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
ORIENTATION = 0x0112  # in EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image upright, by its orientation in EXIF."""
MODES = {1: "L", 3: "RGB"}
"""Modes of Pillow by number of channels."""
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD"),
    *("QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
"""Common formats of pixel images; not documents, films and vector graphics."""


def suffixes() -> frozenset[str]:
    """Suffixes of file names, such as `.png`, of those `FORMATS` that this Pillow can read."""
    known = Image.registered_extensions()  # makes Pillow load its plugins
    readable = {*Image.OPEN, "MPO"}  # MPO is detected by the reader of JPEG
    return frozenset(end for end, name in known.items() if name in FORMATS and name in readable)


@dataclass(frozen=True)
class Encoded:
    """An encoded image that is not a file of its own, such as one in a table."""

    place: str  # where it is stored, for messages
    data: bytes

    def __str__(self) -> str:
        return self.place

    def read_bytes(self) -> bytes:
        return self.data


Picture = Path | Encoded
"""An encoded image; a path may be in an object store."""


class Images(Kind):
    """Images uint8 `[H, W, C]`; `x` is in [-1, 1]."""

    noun: ClassVar[str] = "images"
    stored: ClassVar[type] = np.uint8
    levels: ClassVar[int] = 256
    limit: ClassVar[float | None] = 1.0
    any_size: ClassVar[bool] = True

    def decode(self, items: Any) -> Any:
        return to_float(items)

    def encode(self, x: Any) -> np.ndarray:
        return to_uint8(x)

    @property
    def suffixes(self) -> tuple[str, ...]:
        return tuple(suffixes()) if len(self.shape) == 3 and self.shape[-1] in MODES else ()

    def check_file(self, path: Path) -> None:
        look_at(path, 0)

    def read_file(self, path: Path, channels: int = 0, factor: int = 1) -> np.ndarray:
        return to_float(read_image(path, 0, channels or self.shape[-1]))

    def open_file(self, path: Path) -> np.ndarray:
        """Resized, and its middle."""
        return open_image(path, self.shape)

    def mirrored(self, items: np.ndarray, coins: np.ndarray) -> np.ndarray:
        """Mirrors items left to right where `coins` are true."""
        items[coins] = items[coins, :, ::-1]
        return items

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """Writes one PNG per item."""
        whose = {
            folder / f"{number:06d}.png": (image, about)
            for number, image, about in zip(index, items, made_by, strict=True)
        }
        each_file(lambda path: save_png(path, *whose[path]), list(whose), "writing images")

    def save_restored(self, folder: Path, found: RestoredItem, made_by: Mapping[str, Any]) -> None:
        save_pictures(folder, found, self.encode, made_by)

    def decibels(self, originals: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The peak signal-to-noise ratio."""
        return psnr(x, originals, data_range=2)

    def sheet(
        self,
        items: np.ndarray,
        columns: int,
        texts: Sequence[str] = (),
        marked: Sequence[bool] = (),
    ) -> np.ndarray:
        """Rows of images, each row behind its text."""
        return captioned(items, texts, columns, marked) if len(texts) else tile(items, columns)

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        """A row for each of the first images, noise on the left."""
        few = states[:, :columns].swapaxes(0, 1)
        return tile(few.reshape(-1, *few.shape[2:]), columns=few.shape[1])


class ShownAsImages(Kind):
    """Base class of kinds whose items are turned into images to be shown."""

    @property
    def _images(self) -> Images:
        """The kind of these images."""
        raise NotImplementedError

    def _pictures(self, items: np.ndarray) -> np.ndarray:
        """The images uint8 `[..., H, W, 3]` of items `[..., *shape]`."""
        raise NotImplementedError

    def sheet(
        self,
        items: np.ndarray,
        columns: int,
        texts: Sequence[str] = (),
        marked: Sequence[bool] = (),
    ) -> np.ndarray:
        """Rows of images, each row behind its text."""
        return self._images.sheet(self._pictures(items), columns, texts, marked)

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        return self._images.strip(self._pictures(states), columns)


def to_float(images: Any) -> Any:
    """Maps uint8 in 0..255 to float32 in [-1, 1], any shape; the inverse of `to_uint8`.

    Arrays of JAX stay with it. Only the product is rounded, so that all platforms have the same
    bits: -1 and 1 are exact, and v and 255 - v are opposite numbers.
    """
    images = images if hasattr(images, "astype") else np.asarray(images)
    twice = 2 * images.astype(np.int16) - 255
    return twice.astype(np.float32) * np.float32(1 / 255)


def to_uint8(images: Any) -> np.ndarray:
    """Maps floats in [-1, 1], any shape, to uint8 in 0..255: clipped, then rounded."""
    floats = np.asarray(images, np.float32)
    return np.rint((np.clip(floats, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` pixels with antialiasing and crops the centre square.

    Raises:
        ValueError: resized, so long and thin an image would exceed `MAX_PIXELS`.
    """
    width, height = image.size
    if (width, height) == (size, size):
        return image
    shape = _resized(width, height, size)
    image = image.resize(shape, Image.Resampling.LANCZOS)
    left, top = (shape[0] - size) // 2, (shape[1] - size) // 2
    return image.crop((left, top, left + size, top + size))


def _resized(width: int, height: int, size: int) -> tuple[int, int]:
    """The sides before the crop."""
    scale = size / min(width, height)
    shape = max(size, round(width * scale)), max(size, round(height * scale))
    if shape[0] * shape[1] > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are too long and thin to be made {size} wide")
    return shape


def resize_array(image: np.ndarray, size: int) -> np.ndarray:
    """`resize_and_crop` for uint8 [H, W, C]; returns uint8 [size, size, C]; 0 changes nothing."""
    if size == 0 or image.shape[:2] == (size, size):
        return image
    channels = [resize_and_crop(Image.fromarray(c), size) for c in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(c) for c in channels], axis=-1)


@contextlib.contextmanager
def open_picture(picture: Picture) -> Iterator[Image.Image]:
    """Context: an opened image. All images of users are opened here.

    Raises:
        DataError: `FILE cannot be read: why`, for the file and for all errors in the block.
    """
    try:
        if not isinstance(picture, Encoded):
            _check_file(picture)
        with opened(picture) as image:
            if image.width * image.height > MAX_PIXELS:
                most = int(MAX_PIXELS**0.5)
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than {most} x {most}"
                )
            yield image
    except StoreError:
        raise
    except Exception as error:  # Pillow raises almost anything for a broken file
        reason = getattr(error, "strerror", None) or str(error) or "it is damaged"
        if isinstance(error, UnidentifiedImageError):  # its message contains the path
            reason = "it is no picture" if picture.read_bytes() else "it is empty"
        if isinstance(error, MemoryError):
            reason = "it does not fit in memory"
        raise DataError(f"{shown(picture)} cannot be read: {reason}") from error


def _check_file(path: Path) -> None:
    """Raises a ValueError if the path exists but is not a file: a pipe would wait forever."""
    if not in_store(path) and path.exists() and not path.is_file():
        raise ValueError("it is a folder" if path.is_dir() else "it is not a file")


def converted(image: Image.Image, channels: int = 3) -> Image.Image:
    """Turns an image upright and into RGB, or grey for 1 channel; alpha is blended with white.

    Raises:
        ValueError: for 32-bit pixels, whose range is not in the file.
    """
    image.load()  # this turns TIFF
    turn, wide = _turn(image), image.format == "PPM" and image.mode == "I"
    if image.mode in ("I", "F") and not wide:
        raise ValueError(f"pixels of mode {image.mode} have no known range")
    if wide or image.mode.startswith("I;16"):  # Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = MODES[channels]
    return image if image.mode == mode else image.convert(mode)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition of a loaded image; None if EXIF cannot be read, as in viewers."""
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # from `struct`, or for a value that is not a number
        return None


def read_image(picture: Picture, size: int, channels: int = 3) -> np.ndarray:
    """Reads an image as uint8 [H, W, C], or [size, size, C] if `size` is not 0.

    Raises:
        DataError: the file cannot be read.
    """
    with open_picture(picture) as image:
        image = converted(image, channels)
        array = np.asarray(resize_and_crop(image, size) if size else image)
        return array[..., None] if channels == 1 else array


def open_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an image as uint8 of a `shape` [H, W, C], resized and cropped, grey if C is 1.

    Raises:
        DataError: the file cannot be read.
    """
    height, width, channels = shape
    image = read_image(path, max(height, width), channels)
    top, left = (len(image) - height) // 2, (len(image) - width) // 2
    return image[top : top + height, left : left + width]


class Look(NamedTuple):
    """Properties of an image turned upright."""

    height: int
    width: int
    grey: bool  # whether it has no colour; False for palettes, RGBA and such


def look_at(picture: Picture, size: int) -> Look:
    """Decodes a whole image, and checks that it can be resized to `size`, if that is not 0.

    A header alone does not reveal a truncated file. JPEG is decoded at an eighth of its size, which
    reads every byte in a fraction of the time.

    Raises:
        DataError: the file cannot be read.
    """
    with open_picture(picture) as image:
        width, height = image.size
        image.draft(None, (1, 1))
        image.load()
        if _turn(image) in map(UPRIGHT.get, (5, 6, 7, 8)):  # rotations by 90 degrees
            width, height = height, width
        pixel = image.crop((0, 0, 1, 1))
        pixel.format = image.format
        converted(pixel)
        if size:
            _resized(width, height, size)
        return Look(height, width, _is_grey(image))


def _is_grey(image: Image.Image) -> bool:
    """Whether an image is grey, even if it is stored as RGB."""
    if image.mode != "RGB":
        return image.mode in ("1", "L", "LA", "I") or image.mode.startswith("I;16")
    few = image.resize((16, 16), Image.Resampling.NEAREST)  # nearly always enough to see colour
    return all(bool((pixels == pixels[..., :1]).all()) for pixels in map(np.asarray, (few, image)))
