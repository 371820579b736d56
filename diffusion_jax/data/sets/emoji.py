"""Emoji with their names as a TFDS builder: small images with texts, without internet access.

Concepts are held out. `test` has concepts that are not in `train` in any skin tone, gender or
style; `combination` has concepts and styles that are in `train`, but not together.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from diffusion_jax.data.sets import emoji_pictures
from diffusion_jax.data.sets.digits import png
from diffusion_jax.data.sets.emoji_names import (
    TONES,
    Names,
    captions,
    describe,
    has_tone,
    key_of,
    read_names,
)
from diffusion_jax.data.sets.emoji_pictures import STYLES, Style
from diffusion_jax.data.sources import content_hash, draw
from diffusion_jax.system.progress import tracked

DEFAULT_SIZE = 32
TEST_SHARE = 0.1  # of the concepts
COMBINATION_SHARE = 0.05  # of the pairs of a training concept and a style
TRAIN, TEST, COMBINATION = "train", "test", "combination"
ABOUT = """Emoji and their names, keywords and styles, split by concept.

Pictures in the styles `openmoji` and `line` are designed by OpenMoji, the open-source emoji and
icon project (https://openmoji.org), licence CC BY-SA 4.0; `line` leaves out their colours. Where
they were given: `google` is Noto Emoji, Apache License 2.0; `twitter` is Twemoji, CC BY 4.0, both
from emoji-datasource (MIT); `fluent` is Microsoft's Fluent Emoji, MIT; keywords are of emojibase
(MIT). All are resized and laid on white.
"""


@dataclass(kw_only=True)
class EmojiConfig(tfds.core.BuilderConfig):
    """Styles and size of the images, named by the versions of their sources and the size."""

    size: int
    packages: dict[str, Path]
    styles: tuple[Style, ...]

    @classmethod
    def of(cls, manual_dir: str, image_size: int) -> "EmojiConfig":
        """The styles in packages of pip, and those in npm packages below `manual_dir`, unless ''.

        Images have a side of `image_size` pixels; 0 is 32.

        Raises:
            DataError: packages of pip are missing, or `manual_dir` has no npm packages.
        """
        size = image_size or DEFAULT_SIZE
        packages = emoji_pictures.npm_packages(manual_dir) if manual_dir else {}
        styles = tuple(s for s in STYLES if not s.package or s.package in packages)
        given = [
            (path.relative_to(root).as_posix(), path.stat().st_size)
            for root in packages.values()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        ]
        digest = content_hash(emoji_pictures.versions(packages), [s.name for s in styles], given)
        return cls(name=f"{size}px-{digest[:12]}", size=size, packages=packages, styles=styles)


class Example(NamedTuple):
    """An image uint8 [S, S, 3] and its attributes."""

    key: str
    style: Style
    concept: str
    image: np.ndarray


class Emoji(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Square colour images, each with captions, a concept and a style, from an `EmojiConfig`."""

    VERSION = tfds.core.Version("1.0.1")
    code_path = None  # this module has no files of checksums

    def _info(self) -> tfds.core.DatasetInfo:
        size, text = self.builder_config.size, tfds.features.Text()
        features = {
            "image": tfds.features.Image(shape=(size, size, 3)),
            "captions": tfds.features.Sequence(text),
            "concept": text,
            "style": text,
        }
        return tfds.core.DatasetInfo(
            builder=self, description=ABOUT, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        config, names = self.builder_config, read_names()
        keywords = emoji_pictures.read_keywords(config.packages)
        examples = drop_unclear_lines(_read(config, names))
        splits = split(examples)
        left = len(examples) - sum(map(len, splits.values()))
        logging.getLogger(__name__).info("Left out %d held-out emoji seen in training", left)
        return {
            name: self._generate_examples(part, names, keywords) for name, part in splits.items()
        }

    def _generate_examples(
        self, examples: list[Example], names: Names, keywords: dict[str, tuple[str, ...]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, style, concept, image in tracked(examples, "preparing", len(examples)):
            base = key_of("-".join(code for code in key.split("-") if code not in TONES))
            words = (*keywords.get(base, ()), *names.keywords.get(base, ()))
            name = describe(names.names[key], key)
            example = {
                "image": png(image),
                "captions": captions(name, words, style.words, style.phrase),
                "concept": names.names[concept],
                "style": style.name,
            }
            yield f"{key} {style.name}", example


def _read(config: EmojiConfig, names: Names) -> list[Example]:
    """All images of all styles; blank ones are left out."""
    found = [
        (key, style, path)
        for style in config.styles
        for key, path in emoji_pictures.files_of(style, config.packages, names).items()
    ]

    def read(item: tuple[str, Style, Path]) -> Example:
        key, style, path = item
        image = emoji_pictures.read_picture(path, style, config.size)
        return Example(key, style, names.concept(key), image)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = tracked(pool.map(read, found), "drawing emoji", len(found))
        return [example for example in drawn if example.image.min() < 255]


def drop_unclear_lines(examples: list[Example]) -> list[Example]:
    """Leaves out line drawings that do not show what their name says.

    These are drawings that several emoji share, such as all hearts, and those that are the same in
    colour. The first one of a concept stays.
    """
    concepts: dict[bytes, set[str]] = {}
    first: dict[bytes, Example] = {}
    for example in examples:
        if not has_tone(example.key):
            pixels = example.image.tobytes()
            concepts.setdefault(pixels, set()).add(example.concept)
            first.setdefault(pixels, example)

    def unclear(example: Example) -> bool:
        pixels = example.image.tobytes()
        return len(concepts[pixels]) > 1 or first[pixels] is not example

    return [e for e in examples if not (e.style.name == "line" and unclear(e))]


def split(examples: list[Example]) -> dict[str, list[Example]]:
    """Splits by hashes of concepts and styles, so that new images do not move others.

    One exception: an image of a concept in a held-out style stays in `train` if no other style has
    the concept. Images equal to one of `train` are left out of other splits.
    """
    styles: dict[str, set[str]] = {}
    for example in examples:
        styles.setdefault(example.concept, set()).add(example.style.name)
    splits: dict[str, list[Example]] = {TRAIN: [], TEST: [], COMBINATION: []}
    for example in examples:
        concept = example.concept
        if draw("concept", concept) < TEST_SHARE:
            splits[TEST].append(example)
        elif example.style.name == held_style(concept) and len(styles[concept]) > 1:
            splits[COMBINATION].append(example)
        else:
            splits[TRAIN].append(example)
    seen = {example.image.tobytes() for example in splits[TRAIN]}
    for name in (TEST, COMBINATION):
        splits[name] = [e for e in splits[name] if e.image.tobytes() not in seen]
    return splits


def held_style(concept: str) -> str | None:
    """The style in which a concept is held out, at most one, of all known styles; else None."""
    drawn = (s.name for s in STYLES if draw("pair", concept, s.name) < COMBINATION_SHARE)
    return next(drawn, None)
