"""Kinds of items of data sets: their shape, how they are stored, written and shown."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.restored import RestoredItem


class View(NamedTuple):
    """How items are compared, and seen by networks that judge images."""

    shape: tuple[int, ...]  # of one; that of an image is [H, W, C]
    of: Callable[[Any], Any]  # from `x` `[B, ...]` to floats of about the size of 1 `[B, *shape]`
    words: str = ""  # how it is computed, for passports; '' for `x` itself


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data: items as stored in files, and as inputs `x` of networks."""

    shape: tuple[int, ...]  # of one item, as stored and as `x`
    noun: ClassVar[str] = "items"  # plural, for messages and reports
    stored: ClassVar[type] = np.float32  # dtype as stored
    dtype: ClassVar[type] = np.float32  # of `x`
    # number of values of an entry of `x`, evenly spaced in [-1, 1]; 0 for continuous data
    levels: ClassVar[int] = 0
    limit: ClassVar[float | None] = None  # largest absolute value of an entry of `x`, or None
    shown: ClassVar[int] = 100  # maximum number of items on a sheet of samples
    states: ClassVar[int] = 0  # that a page shows, about as many
    any_size: ClassVar[bool] = False  # whether items of another size can be shown beside it
    placed: ClassVar[bool] = True  # whether a sheet is a grid with one cell per item

    @property
    def words(self) -> str:
        """Noun and shape, such as "images of 8x8x1"."""
        return f"{self.noun} of {'x'.join(map(str, self.shape))}"

    @property
    def vocabulary(self) -> int:
        """Number of tokens V, if entries of `x` are tokens 0 to V - 1; 0 for other data."""
        return 0

    def decode(self, items: Any) -> Any:
        """`x` `[..., *shape]`, of `dtype`, of stored items: arrays of NumPy or of JAX.

        The same bits in a compiled program and here, if nothing is fused with it.
        """
        return items.astype(self.dtype)

    def encode(self, x: Any) -> np.ndarray:
        """Stored items of `x` `[..., *shape]`."""
        return np.asarray(x, self.stored)

    @property
    def view(self) -> View:
        """What distances between items, and networks for images, are given: `x` itself."""
        return View(self.shape, lambda x: x)

    @property
    def blank(self) -> np.ndarray:
        """A stored item that leaves its place on a sheet empty."""
        return self.encode(np.ones(self.shape))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those of files, one item in each, that can be read; of other kinds there are none."""
        return ()

    def check_file(self, path: Path) -> None:
        """Raises a DataError if a file cannot be read, without reading all of it if possible."""
        raise NotImplementedError

    def read_file(self, path: Path, channels: int = 0, factor: int = 1) -> np.ndarray:
        """A file as `x` `[..., C]` of any size.

        Args:
            path: the file.
            channels: C; 0: as many as this kind has.
            factor: the file has so much less resolution than this kind, if that is a part of it.

        Raises:
            DataError: it cannot be read, or is not of this kind.
        """
        raise NotImplementedError

    def open_file(self, path: Path) -> np.ndarray:
        """A file as a stored item.

        Raises:
            DataError: it cannot be read, or made an item of this kind.
        """
        raise NotImplementedError

    def mirrored(self, items: np.ndarray, coins: np.ndarray) -> np.ndarray:
        """Stored items `[B, ...]`, mirrored where `coins` `[B]` are true.

        Raises:
            DataError: items of this kind cannot be mirrored.
        """
        raise DataError(f"data.flip=True mirrors images, and these data are {self.words}.")

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """Writes items number `index` `[N]`, each with its passport in `made_by`, to a folder."""
        raise NotImplementedError

    def save_restored(self, folder: Path, found: RestoredItem, made_by: Mapping[str, Any]) -> None:
        """Writes what restoring one item found to a folder, but for its single samples."""
        raise NotImplementedError

    def decibels(self, originals: np.ndarray, x: np.ndarray) -> np.ndarray:
        """How near restored items are to their originals, `[B, *shape]` each, in dB `[B]`."""
        raise NotImplementedError

    def sheet(
        self,
        items: np.ndarray,
        columns: int,
        texts: Sequence[str] = (),
        marked: Sequence[bool] = (),
    ) -> np.ndarray:
        """An image of items `[N, ...]` as stored, uint8 `[H, W, C]`, with a text for each row.

        Items that are `placed` are in rows of `columns`; texts of `marked` rows are highlighted.
        """
        raise NotImplementedError

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        """An image of how at most `columns` items are sampled, uint8 `[H, W, C]`.

        From states `[K, N, ...]` as stored, from noise to items.
        """
        raise NotImplementedError

    def pages(
        self,
        items: np.ndarray,
        texts: Sequence[str],
        states: np.ndarray,
        made_by: Mapping[str, Any],
    ) -> dict[str, str]:
        """HTML pages of samples by the names of their files, each whole in itself; none by default.

        Args:
            items: `[N, ...]`, as stored.
            texts: the class or the text of each, `[N]`; empty if they have none.
            states: of the first n `[K, n, ...]`, as stored, from noise to items.
            made_by: their passport.
        """
        return {}

    def page_of_pairs(
        self, columns: Mapping[str, np.ndarray], texts: Sequence[str], made_by: Mapping[str, Any]
    ) -> str:
        """An HTML page of items beside others, for what a sheet does not show; '' by default.

        Args:
            columns: items `[N, ...]`, as stored, by the heading of their column.
            texts: of the rows `[N]`.
            made_by: passport of the items.
        """
        return ""
