"""Windows of texts, at random places or side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from diffusion_jax.data.captions import DRAW_BITS
from diffusion_jax.data.sources import Items, draw


@dataclass(frozen=True, eq=False)
class TextWindows:
    """Windows of `length` tokens of texts in memory: for each row one at random in its cell.

    A cell is the windows that begin in a stretch of a text. Without draws the one in the middle is
    read.
    """

    tokens: np.ndarray  # unsigned `[T]`, all texts one after another
    cells: np.ndarray  # int `[N, 3]`: where the first window begins, number of windows, label
    length: int
    resident: ClassVar[bool] = True
    varies: ClassVar[bool] = True

    @classmethod
    def of(
        cls, texts: Mapping[str, np.ndarray], labels: Mapping[str, int], length: int, fixed: bool
    ) -> "TextWindows":
        """The windows of texts, tokens `[n]` by name; shorter ones have none.

        If `fixed`, each cell is one window, next to the one before. Otherwise all windows are
        reached, by cells that are nearly as long as a window. Cells are shuffled, by their hashes,
        so that the first ones are of all texts.
        """
        cells, begin = [], 0
        for name, text in texts.items():
            num = len(text) - length + 1  # of windows
            if fixed:
                starts = np.arange(0, num, length)
                sizes = np.ones_like(starts)
            else:
                ends = np.linspace(0, max(num, 0), max(-(-num // length), 0) + 1).astype(int)
                starts, sizes = ends[:-1], np.diff(ends)
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                cells.append((draw(name, str(start)), begin + start, size, labels[name]))
            begin += len(text)
        places = np.array([place for _, *place in sorted(cells)], int).reshape(-1, 3)
        largest = max((text.max(initial=0) for text in texts.values()), default=0)
        whole = np.concatenate([np.empty(0, np.int64), *texts.values()])
        return cls(whole.astype(np.min_scalar_type(largest)), places, length)

    def __len__(self) -> int:
        return len(self.cells)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        """Windows int32 `[B, length]` and their labels int32 `[B]`."""
        start, size, label = self.cells[rows].T
        if draws is None:
            start = start + size // 2
        else:
            start = start + (draws * size.astype(np.uint64) >> np.uint64(DRAW_BITS)).astype(int)
        places = start[:, None] + np.arange(self.length)
        return self.tokens[places].astype(np.int32), label.astype(np.int32)
