"""Grey images with classes as TFDS builders, and scikit-learn's handwritten digits."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.levels import Levels
from diffusion_jax.data.sources import ArraySource, content_hash
from diffusion_jax.system.progress import tracked


def png(image: np.ndarray) -> io.BytesIO:
    """Encodes uint8 [H, W] as PNG; TFDS would encode an array with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


class Grey(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Grey images with classes, prepared without internet access and without TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # this module has no files of checksums
    about: ClassVar[str]
    side: ClassVar[int]
    classes: ClassVar[list[str]]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(self.side, self.side, 1)),
            "label": tfds.features.ClassLabel(names=self.classes),
        }
        return tfds.core.DatasetInfo(
            builder=self, description=self.about, features=tfds.features.FeaturesDict(features)
        )

    def _generate_examples(
        self, examples: Sequence[tuple[np.ndarray, int]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        each = tracked(examples, "preparing", len(examples))
        for index, (image, label) in enumerate(each):
            yield index, {"image": png(image), "label": label}


class Digits(Grey, skip_registration=True):  # type: ignore[call-arg]
    """1,797 grey 8x8 digits; values 0..16 are stored as `round(v * 255 / 16)`.

    Every fifth image of each class is in `test`, the others in `train`, so both have all classes
    in the same proportions.
    """

    about = "scikit-learn's copy of the UCI handwritten digits."
    side, classes = 8, list("0123456789")

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            name: self._generate_examples(
                [(np.rint(level * (255 / 16)).astype(np.uint8), label) for level, label in split]
            )
            for name, split in split_digits().items()
        }


def split_digits() -> dict[str, list[tuple[np.ndarray, int]]]:
    """Levels 0 to 16 `[8, 8]`, and class, of each digit of each split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    splits: dict[str, list[tuple[np.ndarray, int]]] = {"train": [], "test": []}
    seen: Counter = Counter()
    for image, label in zip(digits.images, digits.target.tolist(), strict=True):
        seen[label] += 1
        splits["train" if seen[label] % 5 else "test"].append((image, label))
    return splits


def load_digits_tokens(options: Options) -> Dataset:
    """The digits with the splits of `Digits`, each pixel a token of one of 17 levels."""
    kind = Levels((Digits.side**2,), tuple("0123456789abcdefg"))
    splits = {}
    for key, split in zip(("train", "heldout"), split_digits().values(), strict=True):
        levels, labels = map(np.array, zip(*split, strict=True))
        items: np.ndarray = levels.reshape(-1, *kind.shape).astype(kind.stored)
        splits[key] = Split(ArraySource(items, labels.astype(np.int32)))
    arrays = (array for split in splits.values() for array in vars(split.source).values())
    return Dataset(
        options.name, kind, splits, tuple(Digits.classes), fingerprint=content_hash(*arrays)
    )
