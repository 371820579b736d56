"""Strokes of drums and percussion, from two Debian packages.

These are hydrogen-drumkits 2017.09.19 and sonic-pi-samples 3.2.2. The class is that of the
instrument's name in a kit's `drumkit.xml`, or else of the file's name; sounds whose names tell
nothing are left out. Licences are those of the packages' `copyright` files.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

from diffusion_jax.data.dataset import Dataset, Options
from diffusion_jax.data.sets.debian import not_installed, package_root
from diffusion_jax.data.sets.recordings import (
    Recording,
    split_recordings,
    windows_of_recordings,
)
from diffusion_jax.data.sound_reading import SUFFIXES

PACKAGES = {
    "hydrogen-drumkits": "usr/share/hydrogen/data/drumkits",
    "sonic-pi-samples": "usr/share/sonic-pi/samples",
}
CLASSES = {
    "stick": r"rim ?click|side ?stick|\bsticks?\b|\brs\b|\brim\b",
    "clap": r"clap",
    "snare": r"snare|\bsn\b|\bsd\b|\bsr\b",
    "kick": r"kick|bass ?drum|drum bass|\bbd\b|hse k\b",
    "hat": r"hi ?hat|\bhat\b|\b[co]?hh|\bh[ho]\b|cymbal (closed|pedal)",
    "cymbal": r"crash|ride|china|splash|cymbal|paiste bell|\bcc\b|\brc\b|\bcra\b",
    "tom": r"tom\b|tom ?[hlm0-9]|\bft\b|\bt[12]\b",
    "bell": r"cowbell|agogo|\bcb\b|bell",
    "hand drum": r"bongo|conga|djembe|tabla|cajon|dununba|kenkeni|sangban",
    "shaker": r"tambourine|maraca",
}
"""What names of each class contain, in order: a name is of the first class that fits."""
NOT_STROKES = re.compile(r"(loop|perc)_")
LAYER = re.compile(r"[ _-]*(\d+|softest|soft|med|hardest|hard)$", re.IGNORECASE)
"""The end of a file's name that tells how hard the stroke is."""


def load_drums(options: Options) -> Dataset:
    """The beginnings of strokes, mixed to mono at `rate` (0: 16,000) Hz.

    All strokes of an instrument of a kit, soft and hard, are in one split.

    Raises:
        DataError: packages are missing, or as `windows_of_recordings`.
    """
    root, found, left = package_root(options), [], 0
    for package, folder in PACKAGES.items():
        if not (root / folder).is_dir():
            raise not_installed(options, folder, PACKAGES)
        for kit in sorted({path.parent for path in (root / folder).rglob("*")}):
            named = instruments(kit)
            for path in sorted(path for path in kit.iterdir() if path.suffix in SUFFIXES):
                kind = class_of(named.get(path.name, "")) or class_of(path.stem)
                if kind is None or NOT_STROKES.match(path.stem):
                    left += 1
                    continue
                group = f"{package}/{kit.name}/{LAYER.sub('', path.stem)}"
                name = path.relative_to(root).as_posix()
                found.append(Recording(name, list(CLASSES).index(kind), group=group))
    notes = [f"{left:,} sounds that are no strokes, or whose names tell no drum, are left out"]
    splits = split_recordings(found, options.heldout_fraction)
    return windows_of_recordings(options, root, splits, "shots", tuple(CLASSES), notes=notes)


def class_of(name: str) -> str | None:
    """The class of the name of an instrument or a file; None if it tells none."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.sub(r"[_.,-]+", " ", words).lower()
    return next((kind for kind, ways in CLASSES.items() if re.search(ways, words)), None)


def instruments(kit: Path) -> dict[str, str]:
    """The instrument of each file of a kit of Hydrogen, by name; empty for other folders."""
    file = kit / "drumkit.xml"
    names: dict[str, str] = {}
    if not file.is_file():
        return {}
    for element in ElementTree.fromstring(file.read_bytes()).iter():
        if element.tag.rpartition("}")[2] == "instrument":
            parts = [(part.tag.rpartition("}")[2], part.text or "") for part in element.iter()]
            named = next((text for tag, text in parts if tag == "name"), "")
            names |= {text.strip(): named for tag, text in parts if tag == "filename"}
    return names
