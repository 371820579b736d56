"""Points in the plane as a kind of data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffusion_jax.data.kind import Kind
from diffusion_jax.system.pictures import tile

SIDE, HALF = 240, 2.0  # pixels of a picture, and half of the side of the square that it shows


class Points(Kind):
    """Points float32 `[2]`, stored as they are, of any size and in no levels."""

    noun: ClassVar[str] = "points"
    shown: ClassVar[int] = 2000

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """All in one `points.csv`: number, label and place."""
        rows = [
            f"{number},{about.get('label')},{x:.6g},{y:.6g}"
            for number, (x, y), about in zip(index, items, made_by, strict=True)
        ]
        (folder / "points.csv").write_text("\n".join(["index,label,x,y", *rows]) + "\n")

    def sheet(
        self,
        items: np.ndarray,
        columns: int,
        texts: Sequence[str] = (),
        marked: Sequence[bool] = (),
    ) -> np.ndarray:
        """All of them in one square."""
        picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
        x, y = np.rint((SIDE - 1) / 2 * (1 + items / HALF * [1, -1])).astype(int).T
        for down, right in np.ndindex(2, 2):
            inside = (np.minimum(x, y) >= 0) & (np.maximum(x, y) < SIDE - 1)
            picture[y[inside] + down, x[inside] + right] = (0, 114, 178)
        return picture

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        """All of them at each of the states, noise on the left."""
        return tile(np.stack([self.sheet(state, columns) for state in states]), len(states))
