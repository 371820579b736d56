"""Patches of the photographs of four Debian packages, for restoration and its priors.

These are all photographs of the packages `PACKAGES`; drawings, renderings and montages are left
out. They were stored as JPEG, so each is averaged over 2 x 2 pixels before it is called clean.
Licences are those of the packages' `copyright` files; the photographs of
plasma-workspace-wallpapers give the LGPL-3 in their own metadata.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from diffusion_jax.data.captions import DRAW_BITS
from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images, converted, open_picture
from diffusion_jax.data.sets.checked import held_out
from diffusion_jax.data.sets.debian import not_installed, package_root
from diffusion_jax.data.sources import Items, content_hash, draw
from diffusion_jax.system.files import readers, stamps
from diffusion_jax.system.progress import tracked

NAME = "photographs"
DEFAULT_SIZE = 64
DOWNSCALE = 2
FLAT = 8.0  # of 255, the standard deviation in every channel below which a cell is left out


class Photograph(NamedTuple):
    """A file of a package, and whom to credit."""

    file: str  # in the package's `folder`
    author: str
    licence: str


class Package(NamedTuple):
    """The photographs of a Debian package."""

    folder: str  # relative to the root of the file system
    photographs: tuple[Photograph, ...]


P = Photograph
PACKAGES = {
    "lomiri-wallpapers-16.04": Package(
        "usr/share/backgrounds",
        (
            P("Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", "CC-BY-SA-4.0"),
            P("Dragonfly_by_Bolly.jpg", "Bolly", "CC-BY-SA-4.0"),
            P("Picture_0B_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0"),
            P("Picture_1A_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0"),
            P("Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0"),
            P("aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
            P("free_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
            P("friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
            P("greentock_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
            P("life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
            P("picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
            P("seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0"),
            P("sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
        ),
    ),
    "lomiri-wallpapers-20.04": Package(
        "usr/share/backgrounds",
        (P("Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", "CC-BY-SA-3.0"),),
    ),
    "mate-backgrounds": Package(
        "usr/share/backgrounds/mate/nature",
        (
            P("Aqua.jpg", "Charles Barbin", "GPL-2+"),
            P("Blinds.jpg", "Lennart Poettering, Andrea Cimitan", "GPL-2+"),
            P("Dune.jpg", "Marco Cogoni, Hylke Bons", "GPL-2+"),
            P("FreshFlower.jpg", "Jens Ansorg", "GPL-2+"),
            P("Garden.jpg", "Charles Barbin", "GPL-2+"),
            P("GreenMeadow.jpg", "Timothy Schellhase, Lapo Calamandrei", "GPL-2+"),
            P("LadyBird.jpg", "Charles Barbin", "GPL-2+"),
            P("RainDrops.jpg", "blackcombwhistler07", "GPL-2+"),
            P("Storm.jpg", "Sergey Nazarov", "GPL-2+"),
            P("TwoWings.jpg", "Charles Barbin, Hylke Bons", "GPL-2+"),
            P("Wood.jpg", "Jean-François Fortin Tam", "GPL-2+"),
            P("YellowFlower.jpg", "Charles Barbin", "GPL-2+"),
        ),
    ),
    "plasma-workspace-wallpapers": Package(
        "usr/share/wallpapers",
        tuple(
            P(f"{name}/contents/images/2560x1600.jpg", author, "GPL-2+")
            for name, author in {
                "BytheWater": "Maciej Wiklo",
                "ColdRipple": "Risto Saukonpää",
                "ColorfulCups": "Dmitri Popov",
                "DarkestHour": "Risto Saukonpää",
                "EveningGlow": "Ian Hex",
                "FallenLeaf": "Martin Klapetek",
                "Grey": "Sigi Sagi",
                "Kite": "Risto Saukonpää",
                "OneStandsOut": "Risto Saukonpää",
                "Path": "Risto Saukonpää",
                "summer_1am": "Risto Saukonpää",
            }.items()
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class Patches:
    """Square windows of photographs in memory: for each row one at random in its cell.

    Cells lie `size` pixels apart and have `size` x `size` windows each, so that windows of
    different cells differ. Without draws the one in the middle is read, which overlaps no other.
    """

    names: Sequence[str]  # of the photographs
    photographs: Sequence[np.ndarray]  # each uint8 [H, W, 3]
    cells: np.ndarray  # int [N, 3]: number of the photograph, top and left of the first window
    size: int  # side of a window in pixels
    resident: ClassVar[bool] = True
    varies: ClassVar[bool] = True

    @classmethod
    def of(cls, photographs: dict[str, np.ndarray], size: int) -> "Patches":
        """The cells of all photographs that are not flat.

        Shuffled, by their hashes, so that the first ones are of all photographs.
        """
        reach = 2 * size - 1  # of all windows of a cell
        cells = [
            (draw(name, str(top), str(left)), number, top, left)
            for number, (name, pixels) in enumerate(photographs.items())
            for top in range(0, pixels.shape[0] - reach + 1, size)
            for left in range(0, pixels.shape[1] - reach + 1, size)
            if not _flat(pixels[top : top + reach, left : left + reach])
        ]
        places = np.array([place for _, *place in sorted(cells)], int).reshape(-1, 3)
        return cls(tuple(photographs), tuple(photographs.values()), places, size)

    def __len__(self) -> int:
        return len(self.cells)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        """Windows uint8 [B, size, size, 3]; the labels are 0."""
        middle = np.full(len(rows), self.size // 2 * (self.size + 1))
        window = (
            middle if draws is None else draws * np.uint64(self.size**2) >> np.uint64(DRAW_BITS)
        )
        places = self.cells[rows]
        places[:, 1:] += np.stack(np.divmod(window.astype(int), self.size), axis=1)
        items = [
            self.photographs[number][top : top + self.size, left : left + self.size]
            for number, top, left in places
        ]
        return np.stack(items), np.zeros(len(rows), np.int32)


def _flat(pixels: np.ndarray) -> bool:
    """Whether every channel of [H, W, C] is nearly constant, by every other pixel."""
    return bool((np.std(pixels[::2, ::2], axis=(0, 1)) < FLAT).all())


def load_photographs(options: Options) -> Dataset:
    """Patches of `image_size` (0: 64) from the packages below `manual_dir` ('' is the system's).

    Whole photographs are held out, `heldout_fraction` of them by a hash of their paths. They are
    held in memory at half their size, 160 MB. An epoch is one window of each cell.

    Raises:
        DataError: packages are missing, a file cannot be read, or the patches do not fit.
    """
    root = package_root(options)
    package = {
        f"{each.folder}/{one.file}": name
        for name, each in PACKAGES.items()
        for one in each.photographs
    }
    names = tuple(package)
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        lacks = f"{len(missing)} of its photographs, {missing[0]} for one"
        raise not_installed(options, lacks, [package[name] for name in missing])

    def read(name: str) -> np.ndarray:
        try:
            with open_picture(root / name) as image:
                return np.asarray(converted(image).reduce(DOWNSCALE))
        except DataError as error:
            raise DataError(f"{error}; install {package[name]} anew.") from error

    with ThreadPoolExecutor(readers(root)) as pool:
        pixels = list(tracked(pool.map(read, names), "reading photographs", len(names)))
    size, splits = options.image_size or DEFAULT_SIZE, {}
    held = held_out(names, options.heldout_fraction)
    for key in ("train", "heldout"):
        part = {
            name: array
            for name, array, out in zip(names, pixels, held, strict=True)
            if out == (key == "heldout")
        }
        splits[key] = Split(Patches.of(part, size))
        if not len(splits[key]):
            raise DataError(
                f"data.image_size={size} and data.heldout_fraction={options.heldout_fraction} "
                f"leave no patch in one of the splits of the {len(names)} photographs, which are "
                f"{min(min(p.shape[:2]) for p in pixels)} pixels wide or more."
            )
    fingerprint = content_hash(names, stamps(root, names), size, held)
    return Dataset(NAME, Images((size, size, 3)), splits, fingerprint=fingerprint)
