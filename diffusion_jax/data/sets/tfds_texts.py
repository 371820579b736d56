"""Sets of texts of TFDS."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from diffusion_jax.data.dataset import Dataset, Options
from diffusion_jax.data.sets.texts import Text, windows_of


def load_tfds_texts(
    options: Options, builder: Any, records: Mapping[str, Any], path: str, notes: Sequence[str]
) -> Dataset:
    """Windows of the texts at `path`, such as `text`, of the records of each split, in memory.

    Raises:
        DataError: as `windows_of`.
    """
    label = dict(builder.info.features.items()).get("label")
    names = label.names if isinstance(label, tfds.features.ClassLabel) else ()
    texts = {
        key: [
            Text(f"{key}:{row}", _text(record, path), record["label"] if names else 0)
            for row, record in enumerate(found)
        ]
        for key, found in records.items()
    }
    return windows_of(options, texts, names, notes=notes)


def _text(record: Any, path: str) -> str:
    for key in path.split("/"):
        record = record[key]
    return record.decode("utf-8", "replace") if isinstance(record, bytes) else str(record)
