"""Data sets by name."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from diffusion_jax.data.dataset import Dataset, Options
from diffusion_jax.data.sets.digits import load_digits_tokens
from diffusion_jax.data.sets.drums import load_drums
from diffusion_jax.data.sets.folder import load_folder
from diffusion_jax.data.sets.hidden_markov import load_hidden_markov
from diffusion_jax.data.sets.huggingface import load_huggingface
from diffusion_jax.data.sets.letters import load_letters
from diffusion_jax.data.sets.music import load_music
from diffusion_jax.data.sets.nothing import load_nothing
from diffusion_jax.data.sets.photographs import load_photographs
from diffusion_jax.data.sets.points import POINTS, load_points
from diffusion_jax.data.sets.prompts import load_prompts
from diffusion_jax.data.sets.recordings import load_recordings
from diffusion_jax.data.sets.sotu import load_sotu
from diffusion_jax.data.sets.texts import load_text
from diffusion_jax.data.sets.tfds_sets import describe_tfds, load_tfds
from diffusion_jax.data.sources import ArraySource, content_hash

MEMORY_LIMIT = 2 * 2**30  # bytes of items up to which sets are held in memory by default
READERS: dict[str, Callable[[Options], Dataset]] = {
    "digits_tokens": load_digits_tokens,
    "drums": load_drums,
    "folder": load_folder,
    "hmm": load_hidden_markov,
    "huggingface": load_huggingface,
    "letters": load_letters,
    "music": load_music,
    "none": load_nothing,
    "photographs": load_photographs,
    "prompts": load_prompts,
    "recordings": load_recordings,
    "sotu": load_sotu,
    "text": load_text,
    **dict.fromkeys(POINTS, load_points),
}
"""Readers of data sets that are not in TFDS, by name."""


def load_dataset(name: str, *, memory: bool | None = None, **options: Any) -> Dataset:
    """Loads a data set by its name and the other fields of `Options`, preparing it on first use.

    `memory`: whether all items are decoded now and held in memory; None: up to 2 GiB.

    Raises:
        DataError: one sentence on which setting is wrong and what is allowed.
    """
    asked = Options(name, **options)
    found = READERS[name](asked) if name in READERS else load_tfds(asked, tuple(READERS))
    item = int(np.prod(found.kind.shape)) * np.dtype(found.kind.stored).itemsize
    if memory is None:
        memory = sum(map(len, found.splits.values())) * item <= MEMORY_LIMIT
    splits = {
        # Empty sources, too: on disk their shape would be unknown.
        key: replace(split, source=ArraySource(*found.arrays(key)))
        if not split.source.resident and (memory or not len(split))
        else split
        for key, split in found.splits.items()
    }
    fingerprint = found.fingerprint  # of the files: the same in memory and on disk
    for note in found.notes:
        logging.getLogger(__name__).warning("%s: %s", options.get("data_dir") or name, note)
    for split in splits.values():
        if split.captions is not None:
            fingerprint = content_hash(fingerprint, *vars(split.captions).values())
    return replace(found, splits=splits, fingerprint=fingerprint)


def describe_dataset(name: str, **options: Any) -> Dataset | None:
    """A data set of TFDS that is not prepared yet, without items; None if it can be loaded.

    A set with captions has empty ones. Arguments and errors are those of `load_dataset`.
    """
    asked = Options(name, **options)
    return None if name in READERS else describe_tfds(asked, tuple(READERS))
