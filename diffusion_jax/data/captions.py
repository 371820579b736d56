"""The texts of a data set's images, and the choice of one for each image of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAW_BITS = 32


@dataclass(frozen=True, eq=False)
class Captions:
    """Texts of the N images of one split."""

    texts: tuple[str, ...]  # all distinct texts
    ids: np.ndarray  # int32, the numbers of texts of the first image, then of the second and so on
    # int64 [N + 1]; image i has `ids[offsets[i] : offsets[i + 1]]`, at least one, its plain name
    # first
    offsets: np.ndarray
    concepts: tuple[str, ...] = ()  # the subject of each image [N]; empty if not known
    styles: tuple[str, ...] = ()  # the style of each image [N]; empty if not known

    @classmethod
    def of(
        cls,
        texts: Sequence[Sequence[str]],
        concepts: Sequence[str] = (),
        styles: Sequence[str] = (),
    ) -> "Captions":
        """From the texts of each image [N], the plainest first; equal texts get one number."""
        numbers: dict[str, int] = {}
        ids = [numbers.setdefault(text, len(numbers)) for image in texts for text in image]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return cls(tuple(numbers), np.array(ids, np.int32), offsets, tuple(concepts), tuple(styles))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.offsets) - 1

    def of_image(self, row: int) -> tuple[str, ...]:
        """All texts of image `row`."""
        return tuple(self.texts[i] for i in self.ids[self.offsets[row] : self.offsets[row + 1]])

    def first(self, rows: np.ndarray) -> np.ndarray:
        """The number int32 [B] of the first text of images `rows` [B]."""
        found: np.ndarray = self.ids[self.offsets[rows]]
        return found

    def draw(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """The number int32 [B] of a random text of each of the images `rows` [B], all as likely.

        `draws` are uniform uint64 [B] below 2**32.
        """
        starts, ends = self.offsets[rows], self.offsets[np.asarray(rows) + 1]
        places = (draws * (ends - starts).astype(np.uint64)) >> np.uint64(DRAW_BITS)
        found: np.ndarray = self.ids[starts + places.astype(np.int64)]
        return found
