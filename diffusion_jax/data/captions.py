"""Texts that describe images, one or several of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Captions:
    """The texts of the N images of a split.

    Attributes:
        texts: all texts that differ.
        ids: int32 `[M]`, numbers of texts, those of the first image first.
        offsets: int64 `[N + 1]`: image i has `ids[offsets[i]:offsets[i + 1]]`, one or more, its
            plain name first.
        concepts: what each image shows, in whatever style; empty for sets that do not say.
        styles: how each image shows it; empty likewise.
    """

    texts: tuple[str, ...]
    ids: np.ndarray
    offsets: np.ndarray
    concepts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        captions: Sequence[Sequence[str]],
        concepts: Sequence[str] = (),
        styles: Sequence[str] = (),
    ) -> "Captions":
        """The captions of each image, one or more."""
        number = {text: i for i, text in enumerate(dict.fromkeys(t for c in captions for t in c))}
        return cls(
            tuple(number),
            np.array([number[text] for own in captions for text in own], np.int32),
            np.concatenate([[0], np.cumsum([len(own) for own in captions])]).astype(np.int64),
            tuple(concepts),
            tuple(styles),
        )

    def first(self, rows: np.ndarray) -> np.ndarray:
        """Numbers int32 `[B]` of the first texts of images `rows` `[B]`."""
        found: np.ndarray = self.ids[self.offsets[rows]]
        return found

    def drawn(self, rows: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Numbers int32 `[B]` of texts of images `rows` `[B]`, by random `bits` uint64 `[B]`."""
        count = (self.offsets[rows + 1] - self.offsets[rows]).astype(np.uint64)
        found: np.ndarray = self.ids[self.offsets[rows] + (bits % count).astype(np.int64)]
        return found
