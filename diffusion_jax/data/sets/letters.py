"""The letters A to Z, spoken in 15 languages, from the Debian package klettres-data 22.12.3.

Files of a language are named by its `sounds.xml`. Letters with accents, other alphabets and
syllables are left out. The licence is the GPL-2 or later.
"""

import string
from xml.etree import ElementTree

from diffusion_jax.data.dataset import Dataset, Options
from diffusion_jax.data.sets.debian import not_installed, package_root
from diffusion_jax.data.sets.recordings import Recording, split_recordings, windows_of_recordings

PACKAGE = "klettres-data"
FOLDER = "usr/share/klettres"
LETTERS = string.ascii_uppercase


def load_letters(options: Options) -> Dataset:
    """Spoken letters without the silence around them, mixed to mono at `rate` (0: 16,000) Hz.

    `heldout_fraction` of the recordings is held out, each a letter in a language.

    Raises:
        DataError: the package is missing, or as `windows_of_recordings`.
    """
    root = package_root(options)
    found = []
    for file in sorted((root / FOLDER).glob("*/sounds.xml")):
        for alphabet in ElementTree.fromstring(file.read_bytes()).iter("alphabet"):
            for sound in alphabet.iter("sound"):
                letter = sound.get("name", "").upper()
                name = f"{FOLDER}/{sound.get('file')}"
                if len(letter) == 1 and letter in LETTERS and (root / name).is_file():
                    found.append(Recording(name, LETTERS.index(letter)))
    if not found:
        raise not_installed(options, FOLDER, [PACKAGE])
    splits = split_recordings(found, options.heldout_fraction)
    return windows_of_recordings(options, root, splits, "shots", tuple(LETTERS))
