"""Windows of texts and recordings, at random places or side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from diffusion_jax.data.captions import DRAW_BITS
from diffusion_jax.data.sources import Items, draw


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of `length` entries of long series in memory: for each row one random in its cell.

    A cell is the windows that begin in a stretch of a series. Without draws the one in the middle
    is read.
    """

    entries: np.ndarray  # `[T, ...]`, all series one after another
    cells: np.ndarray  # int `[N, 3]`: where the first window begins, number of windows, label
    length: int
    stored: ClassVar[type]  # dtype of windows
    resident: ClassVar[bool] = True
    varies: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.cells)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        """Windows `[B, length, ...]` and their labels int32 `[B]`."""
        start, size, label = self.cells[rows].T
        if draws is None:
            start = start + size // 2
        else:
            start = start + (draws * size.astype(np.uint64) >> np.uint64(DRAW_BITS)).astype(int)
        places = start[:, None] + np.arange(self.length)
        return self.entries[places].astype(self.stored), label.astype(np.int32)


def cells_of(
    places: Mapping[str, tuple[int, int]], labels: Mapping[str, int], length: int, fixed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The cells `[N, 3]` of series, and the number of the series of each `[N]`.

    Series are given by name, as where they begin and their size; those shorter than a window have
    no cell. If `fixed`, each cell is one window, next to the one before. Otherwise all windows are
    reached, by cells that are nearly as long as a window. Cells are shuffled, by their hashes, so
    that the first ones are of all series.
    """
    cells = []
    for number, (name, (begin, size)) in enumerate(places.items()):
        num = size - length + 1  # of windows
        if fixed:
            starts = np.arange(0, num, length)
            sizes = np.ones_like(starts)
        else:
            ends = np.linspace(0, max(num, 0), max(-(-num // length), 0) + 1).astype(int)
            starts, sizes = ends[:-1], np.diff(ends)
        for start, many in zip(starts.tolist(), sizes.tolist(), strict=True):
            cells.append((draw(name, str(start)), begin + start, many, labels[name], number))
    found = np.array([place for _, *place in sorted(cells)], int).reshape(-1, 4)
    return found[:, :3], found[:, 3]


class TextWindows(Windows):
    """Windows int32 `[length]` of texts, which are kept as small unsigned numbers."""

    stored: ClassVar[type] = np.int32

    @classmethod
    def of(
        cls, texts: Mapping[str, np.ndarray], labels: Mapping[str, int], length: int, fixed: bool
    ) -> "TextWindows":
        """The windows of texts, tokens `[n]` by name, with the cells of `cells_of`."""
        ends = np.cumsum([0, *map(len, texts.values())]).tolist()
        places = {
            name: (end, len(text)) for (name, text), end in zip(texts.items(), ends, strict=False)
        }
        cells, _ = cells_of(places, labels, length, fixed)
        largest = max((text.max(initial=0) for text in texts.values()), default=0)
        whole = np.concatenate([np.empty(0, np.int64), *texts.values()])
        return cls(whole.astype(np.min_scalar_type(largest)), cells, length)


class SoundWindows(Windows):
    """Windows int16 `[length, C]` of recordings."""

    stored: ClassVar[type] = np.int16
