"""Fashion-MNIST as a TFDS builder for local idx files: no internet access, no TensorFlow.

TFDS's own builder rejects the files of the Debian package `dataset-fashion-mnist`, which contain
the same data compressed again, because their checksums differ.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets.digits import Grey

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
CLASSES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]
PREFIXES = {"train": "train", "test": "t10k"}
KINDS = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")


def idx_files(folder: Path) -> list[Path]:
    """The four files that `FashionMnist` reads from `folder`."""
    return [folder / f"{prefix}-{kind}" for prefix in PREFIXES.values() for kind in KINDS]


def read_idx(path: Path) -> np.ndarray:
    """Reads a gzipped idx file of bytes as uint8 of the shape in its header.

    Raises:
        DataError: the file is not a complete idx file of bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        rank = content[3]
        shape = np.frombuffer(content, ">u4", rank, offset=4)
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("not an idx file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(
            f"data.manual_dir: {path} is not a whole gzipped idx file: {error}."
        ) from error


@dataclass(kw_only=True)
class IdxConfig(tfds.core.BuilderConfig):
    """The folder of the four idx.gz files.

    Its name is a hash of their content, under which the prepared set is stored, so that other files
    are prepared anew.
    """

    folder: str

    @classmethod
    def of(cls, folder: Path) -> "IdxConfig":
        """The config for the files in `folder`."""
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in idx_files(folder)))
        return cls(name="idx-" + digest.hexdigest()[:12], folder=str(folder))


class FashionMnist(Grey, skip_registration=True):  # type: ignore[call-arg]
    """Grey 28x28 images of clothes in 10 classes, from an `IdxConfig`.

    The features are those of TFDS's `fashion_mnist`.
    """

    about = (
        "Zalando's article images, 60,000 to train and 10,000 to test: "
        "https://github.com/zalandoresearch/fashion-mnist"
    )
    side, classes = 28, CLASSES

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder, splits = Path(self.builder_config.folder), {}
        for name, prefix in PREFIXES.items():
            images, labels = (read_idx(folder / f"{prefix}-{kind}") for kind in KINDS)
            examples = list(zip(images, labels.tolist(), strict=True))
            splits[name] = self._generate_examples(examples)
        return splits
