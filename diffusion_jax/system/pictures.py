"""Image files for viewing: grids, strips and animations of uint8 images."""

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from diffusion_jax.system.files import written_whole


class Readable(Protocol):
    """A path, or another holder of the bytes of a file."""

    def read_bytes(self) -> bytes: ...


LINE = 96  # characters in a line of `written`
WORDS = 190  # pixels for the caption next to a row of images
MIN_TILE = 48  # pixels: smaller images are enlarged by whole factors, without smoothing


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Arranges images uint8 `[N, H, W, C]` in rows of `columns` on white, equally enlarged."""
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


def captioned(
    images: np.ndarray, captions: Sequence[str], columns: int, marked: Sequence[bool] = ()
) -> np.ndarray:
    """Rows of `columns` images, each with a caption on the left; uint8 `[H, W, C]`.

    From images uint8 `[len(captions) * columns, H, W, C]`, row by row. Captions are plain text:
    long ones are cut, and those of `marked` rows are red.
    """
    from matplotlib import font_manager  # its fonts have more than Latin letters

    sheet = tile(images, columns)
    height = (len(sheet) - 1) // len(captions)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 11)
    margin = Image.new("RGB", (WORDS, len(sheet)), "white")
    pen = ImageDraw.Draw(margin)
    for row, caption in enumerate(captions):
        lines = textwrap.wrap(caption, 28)[: max(1, height // 14)] or ["(no text)"]
        ink = "#b00000" if row < len(marked) and marked[row] else "black"
        top = row * height + (height - 14 * len(lines)) // 2
        pen.multiline_text((4, top), "\n".join(lines), ink, font, spacing=2)
    if sheet.shape[-1] == 1:
        sheet = sheet.repeat(3, axis=-1)
    return np.concatenate([np.asarray(margin), sheet], axis=1)


def written(
    texts: Sequence[str],
    headings: Sequence[str] = (),
    marked: Sequence[bool] = (),
    faint: str = "",
) -> np.ndarray:
    """Texts one below another, as uint8 `[H, W, 3]`, in lines of `LINE` characters.

    Lines are broken at that length alone, so that each character keeps its place if others are
    changed; line breaks and tabs are shown as signs. Headings, '' for none, are grey, and red if
    they are `marked`; the characters `faint` are grey, too.
    """
    from matplotlib import font_manager

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), 13)
    lines: list[tuple[str, str]] = []  # text and colour
    for number, text in enumerate(texts):
        if number < len(headings) and headings[number]:
            ink = "#b00000" if number < len(marked) and marked[number] else "#59636e"
            lines.append((_visible(headings[number])[:LINE], ink))
        whole = _visible(text)
        starts = range(0, max(len(whole), 1), LINE)
        lines += [*((whole[start : start + LINE], "black") for start in starts), ("", "black")]
    wide = font.getlength("0") * max((len(line) for line, _ in lines), default=0)
    image = Image.new("RGB", (round(wide) + 16, 17 * max(len(lines) - 1, 1) + 12), "white")
    pen = ImageDraw.Draw(image)
    for row, (line, ink) in enumerate(lines):
        for part, colour in ((False, ink), (True, "#98a2ad")):
            shown = "".join(c if (c in faint) == part else " " for c in line)
            pen.text((8, 6 + 17 * row), shown, colour, font)
    return np.asarray(image)


def _visible(text: str) -> str:
    """The text in one line, with signs for line breaks, tabs and what cannot be printed."""
    signs = {"\n": "\u21b5", "\t": "\u2192"}
    return "".join(signs.get(c, c if c.isprintable() else "\ufffd") for c in text)


def as_image(array: np.ndarray) -> Image.Image:
    """A Pillow image of uint8 `[H, W, C]` with 1 (grey) or 3 (RGB) channels."""
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def opened(file: Readable) -> Image.Image:
    """Opens the image in a file, local or in a store; read, but not yet decoded."""
    return Image.open(io.BytesIO(file.read_bytes()))


def save_png(path: Path, array: np.ndarray, made_by: Mapping[str, Any]) -> None:
    """Writes uint8 `[H, W, C]` as PNG, with `made_by` as JSON in the text chunk of that name.

    Atomic, since `read_made_by` decides whether the file is there.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text("made_by", json.dumps(made_by))
    with written_whole(path, lasting=False) as part:
        as_image(array).save(part, format="png", pnginfo=info)


def read_made_by(path: Path) -> dict[str, Any] | None:
    """The `made_by` of the image at `path`; None if it is missing or incomplete."""
    try:
        with opened(path) as image:
            image.load()
            made_by: dict[str, Any] = json.loads(image.info["made_by"])
    except (KeyError, OSError, SyntaxError, TypeError, ValueError):
        return None
    return made_by


def save_gif(path: Path, frames: Sequence[np.ndarray], milliseconds: int = 120) -> None:
    """Writes an animation of frames uint8 `[H, W, C]`; the last one stays for two seconds.

    Smaller frames, such as those of texts that grow, are continued in white.
    """
    high, wide = np.max([frame.shape[:2] for frame in frames], axis=0)
    pictures = [
        as_image(
            np.pad(
                frame,
                ((0, high - len(frame)), (0, wide - frame.shape[1]), (0, 0)),
                constant_values=255,
            )
        )
        for frame in frames
    ]
    durations = [milliseconds] * (len(pictures) - 1) + [2000]
    several = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    with written_whole(path, lasting=False) as part:
        pictures[0].save(part, format="gif", optimize=False, **several)
