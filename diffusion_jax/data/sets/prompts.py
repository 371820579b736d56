"""Spoken prompts of telephones with their transcripts, in five languages, one voice each.

From the Debian packages asterisk-core-sounds-LANGUAGE-g722 (the recordings, G.722 at 16 kHz) and
asterisk-core-sounds-LANGUAGE (the transcripts), 1.6.1. The licence is CC-BY-SA-3.0, of the Russian
ones CC-BY-3.0.
"""

import gzip
import re
from collections.abc import Iterable
from pathlib import Path

from diffusion_jax.data.dataset import Dataset, Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.debian import not_installed, package_root
from diffusion_jax.data.sets.recordings import Recording, split_recordings, windows_of_recordings

VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
"""Folder of each language's voice."""
FOLDER = "usr/share/asterisk/sounds"
TEXTS = "usr/share/doc/asterisk-core-sounds-{0}/core-sounds-{0}.txt.gz"
PACKAGES = "asterisk-core-sounds-{0}-g722", "asterisk-core-sounds-{0}"
SIGN = re.compile(r"\s*\[\W*\]\s*")
"""A sign in brackets behind its name, such as "[@]"."""


def load_prompts(options: Options) -> Dataset:
    """Prompts and their transcripts; the classes are the languages.

    A prompt is held out in all languages, and so are others that have its transcript in any.

    Raises:
        DataError: packages are missing, or as `windows_of_recordings`.
    """
    root, spoken, left = package_root(options), [], 0
    for language, voice in VOICES.items():
        folder, file = root / FOLDER / voice, root / TEXTS.format(language)
        names = [p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.g722")]
        if not names or not file.is_file():
            lacks = f"{FOLDER}/{voice}" if not names else TEXTS.format(language)
            raise not_installed(
                options, lacks, [each.format(of) for of in VOICES for each in PACKAGES]
            )
        texts = transcripts(file)
        for name in sorted(names):
            if text := texts.get(name.lower()):
                spoken.append((language, name, text))
            else:
                left += 1
    group = groups((f"{language} {text.lower()}", name.lower()) for language, name, text in spoken)
    recordings = [
        Recording(
            f"{FOLDER}/{VOICES[language]}/{name}.g722",
            *(list(VOICES).index(language), (text,), group[name.lower()]),
        )
        for language, name, text in spoken
    ]
    notes = [f"{left:,} recordings of tones and silence, or without a transcript, are left out"]
    splits = split_recordings(recordings, options.heldout_fraction)
    return windows_of_recordings(options, root, splits, "padded", tuple(VOICES), notes=notes)


def transcripts(file: Path) -> dict[str, str]:
    """What is said, by lower-case name; without those that only describe a sound in brackets."""
    try:
        lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}; install its package anew.") from error
    found = {}
    for line in lines:
        name, _, text = line.partition(":")
        text = SIGN.sub(" ", text).strip()
        if re.search(r"\w", text) and not re.search(r"[\[(<]", text) and not name.startswith(";"):
            found[name.strip().lower()] = text
    return found


def groups(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each name of pairs (key, name): names that share a key, in a row, are in one."""
    above: dict[str, str] = {}  # a tree of each group
    first: dict[str, str] = {}  # name with a key

    def top(name: str) -> str:
        while above[name] != name:
            name = above[name]
        return name

    for key, name in pairs:
        above.setdefault(name, name)
        above[top(name)] = top(first.setdefault(key, name))
    return {name: top(name) for name in above}
