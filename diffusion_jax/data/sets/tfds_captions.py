"""The captions of a TFDS set, read without decoding its images."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import NO_CAPTIONS
from diffusion_jax.data.errors import DataError

USUAL_KEYS = ("captions", "caption", "texts", "text")
OTHERS = ("concept", "style")
CHUNK = 1024  # records read at once


def find_captions(features: Mapping[str, Any], name: str, key: str) -> str:
    """The path of the captions in a builder's features, such as `captions/text`; '' for none.

    `key` is `data.caption_key`, a feature or a path; '' finds the usual names, `NO_CAPTIONS` gives
    ''. `name`, of the set, is for the message.

    Raises:
        DataError: `key` is not a text.
    """
    if key == NO_CAPTIONS:
        return ""
    paths = list(_texts(features))
    for outer in [key] if key else USUAL_KEYS:
        for path in (outer, *(f"{outer}/{inner}" for inner in USUAL_KEYS)):
            if path in paths:
                return path
    if key:
        raise DataError(
            f"data.caption_key='{key}' is no text of data.name='{name}', which has "
            f"{', '.join(paths) or 'none'}."
        )
    return ""


def _texts(features: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The paths of features that are texts or sequences of texts."""
    for key, feature in features.items():
        if isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        if isinstance(feature, tfds.features.FeaturesDict):
            yield from _texts(feature, f"{above}{key}/")
        elif feature.np_dtype in (np.str_, np.object_):
            yield above + key


def read_captions(builder: Any, split: str, path: str, name: str) -> Captions:
    """Reads the texts at `path` of every record of a split, and `concept` and `style` if there.

    Raises:
        DataError: a record has no text.
    """
    features = dict(builder.info.features.items())
    skipped = {
        key: tfds.decode.SkipDecoding()
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    records = builder.as_data_source(split, decoders=skipped)
    outer, _, inner = path.partition("/")
    texts: list[tuple[str, ...]] = []
    others: dict[str, list[str]] = {
        key: [] for key in OTHERS if isinstance(features.get(key), tfds.features.Text)
    }
    for start in range(0, len(records), CHUNK):
        for record in records.__getitems__(list(range(len(records))[start : start + CHUNK])):
            texts.append(_strings(_at(record[outer], inner)))
            for key, values in others.items():
                values.extend(_strings(record[key]) or ("",))
            if not texts[-1]:
                raise DataError(
                    f"data.caption_key='{path}': image {len(texts) - 1} of split '{split}' of "
                    f"data.name='{name}' has no text there."
                )
    return Captions.of(texts, *(others.get(key, ()) for key in OTHERS))


def _at(value: Any, path: str) -> Any:
    """The value at a path in a record; a sequence of groups may be a list or a group."""
    for key in filter(None, path.split("/")):
        value = [v[key] for v in value] if isinstance(value, list | tuple) else value[key]
    return value


def _strings(value: Any) -> tuple[str, ...]:
    """All texts of a text or of sequences of texts, without empty and repeated ones."""
    if isinstance(value, list | tuple) or np.ndim(value):
        return tuple(dict.fromkeys(text for part in value for text in _strings(part)))
    value = value.item() if isinstance(value, np.ndarray) else value
    text = (value.decode() if isinstance(value, bytes) else str(value)).strip()
    return (text,) if text else ()
