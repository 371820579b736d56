"""What an item of a data set is: its shape, how it is stored, how it is written and shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffusion_jax.data.errors import DataError


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data. Items are stored as they are in files, and are `x` as networks have them."""

    shape: tuple[int, ...]  # of one item, as stored and as `x`
    noun: ClassVar[str] = "items"  # plural, for messages and reports
    stored: ClassVar[type] = np.float32  # dtype as stored
    dtype: ClassVar[type] = np.float32  # of `x`
    # number of values that an entry of `x` can have, evenly over [-1, 1]; 0 for continuous data
    levels: ClassVar[int] = 0
    limit: ClassVar[float | None] = None  # largest absolute value of an entry of `x`, or None
    shown: ClassVar[int] = 100  # items at most on a sheet of samples
    placed: ClassVar[bool] = True  # whether each has a place of its own there

    @property
    def words(self) -> str:
        """Noun and shape, such as "images of 8x8x1"."""
        return f"{self.noun} of {'x'.join(map(str, self.shape))}"

    def decode(self, items: Any) -> np.ndarray:
        """`x` float32 `[..., *shape]` of stored items."""
        return np.asarray(items, self.dtype)

    def encode(self, x: Any) -> np.ndarray:
        """Stored items of `x` `[..., *shape]`."""
        return np.asarray(x, self.stored)

    def mirrored(self, items: np.ndarray, coins: np.ndarray) -> np.ndarray:
        """Stored items `[B, ...]`, mirrored where `coins` `[B]` says so.

        Raises:
            DataError: items of this kind cannot be mirrored.
        """
        raise DataError(f"data.flip=True mirrors images, and these data are {self.words}.")

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """Writes items number `index` `[N]`, each with its `made_by`, into an empty folder."""
        raise NotImplementedError

    def sheet(
        self,
        items: np.ndarray,
        columns: int,
        texts: Sequence[str] = (),
        marked: Sequence[bool] = (),
    ) -> np.ndarray:
        """A picture of items `[N, ...]` as stored, uint8 `[H, W, C]`, with a text for each row.

        Where items are `placed` there are `columns` in a row; the texts of rows that are `marked`
        stand out.
        """
        raise NotImplementedError

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        """A picture of how at most `columns` items came about, uint8 `[H, W, C]`.

        Of states `[K, N, ...]` as stored, from noise to items.
        """
        raise NotImplementedError
