"""Texts as tokens of a vocabulary, and how they are written and shown."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.unmasking import unmasking_page
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.pictures import written

MASK = "░"
"""Sign of the mask in texts."""
BLANK = "_"
"""Sign of the mask in texts of users."""
STATES = 3  # texts on a strip, at most


@dataclasses.dataclass(frozen=True)
class Tokens(Kind):
    """Texts of L tokens, int32 `[L]`, stored unchanged; the mask is number V."""

    # Text of each of the V tokens. Bytes that are no UTF-8 by themselves are surrogates, as
    # Python's error handler "surrogateescape" makes them, so that pieces can be saved as JSON.
    pieces: tuple[str, ...]
    noun: ClassVar[str] = "texts"
    unit: ClassVar[str] = "character"  # what `lengths` counts
    stored: ClassVar[type] = np.int32
    dtype: ClassVar[type] = np.int32
    shown: ClassVar[int] = 20
    states: ClassVar[int] = 64
    placed: ClassVar[bool] = False

    @property
    def vocabulary(self) -> int:
        return len(self.pieces)

    @property
    def words(self) -> str:
        """Such as "texts of 256 characters", "256 bytes" or "256 tokens (of 1,024)"."""
        (length,) = self.shape
        if max(map(len, self.pieces)) > 1:
            return f"{self.noun} of {length:,} tokens (of {self.vocabulary:,})"
        parts = any("\udc80" <= piece <= "\udcff" for piece in self.pieces)
        return f"{self.noun} of {length:,} {'bytes' if parts else 'characters'}"

    def text(self, items: np.ndarray) -> list[str]:
        """Texts of items `[N, L]`; numbers that are no token, such as the mask, are `MASK`.

        Bytes that are no UTF-8 become the replacement character.
        """
        pieces = np.array([*self.pieces, MASK], object)
        return [as_utf8("".join(row)).decode("utf-8", "replace") for row in pieces[self._of(items)]]

    def read(self, text: str) -> np.ndarray:
        """Tokens int32 `[L]` of a text in which `BLANK` is a mask; what is missing are masks, too.

        Raises:
            DataError: it is longer than a window, or has a character that is no token.
        """
        (length,) = self.shape
        number = {piece: i for i, piece in enumerate(self.pieces)} | {BLANK: self.vocabulary}
        known: list[int] = []
        for letter in text:
            signs = letter
            if letter not in number:  # its bytes may be
                signs = letter.encode("utf-8", "surrogatepass").decode("ascii", "surrogateescape")
            if any(sign not in number for sign in signs):
                raise DataError(f"{letter!r} is no token of the {self.words}")
            known += [number[sign] for sign in signs]
        if len(known) > length:
            raise DataError(f"{len(known)} tokens are more than the {length} of a window")
        tokens = np.full(length, self.vocabulary, np.int32)
        tokens[: len(known)] = known
        return tokens

    def lengths(self, items: np.ndarray) -> np.ndarray:
        """Number of characters `[N]` of items `[N, L]`, for bits per character.

        A character belongs to the token with its first byte, so that the windows of a text have as
        many characters as the text. The mask is one.
        """
        return self._characters[self._of(items)].sum(-1)

    def _of(self, items: np.ndarray) -> np.ndarray:
        """Items with all that are no tokens as masks."""
        return np.where((items < 0) | (items > self.vocabulary), self.vocabulary, items)

    @functools.cached_property
    def _characters(self) -> np.ndarray:
        """Number of characters that begin in each token, and in the mask, int `[V + 1]`."""
        first = [sum(byte & 0xC0 != 0x80 for byte in as_utf8(piece)) for piece in self.pieces]
        return np.array([*first, 1])

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """Writes all texts to one `samples.md`, what all passports have in common on top."""
        common = {
            name: value
            for name, value in made_by[0].items()
            if all(name in about and about[name] == value for about in made_by)
        }
        blocks = ["# Samples", fenced(json.dumps(common, indent=1), "json")]
        for number, text, about in zip(index, self.text(items), made_by, strict=True):
            own = {k: v for k, v in about.items() if k not in common and k != "index"}
            blocks += [f"## {number}", *([fenced(json.dumps(own), "json")] if own else [])]
            blocks.append(fenced(text))
        write_whole(folder / "samples.md", ("\n\n".join(blocks) + "\n").encode())

    def sheet(
        self,
        items: np.ndarray,
        columns: int,
        texts: Sequence[str] = (),
        marked: Sequence[bool] = (),
    ) -> np.ndarray:
        """Texts one below another; `texts` are headings of `columns` of them each."""
        rows = range(len(items))
        headings = [texts[row // columns] if texts and row % columns == 0 else "" for row in rows]
        red = [bool(len(marked) and marked[row // columns]) for row in rows]
        return written(self.text(items), headings, red, MASK)

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        """The states of each of a few texts, one below another."""
        few = states[:, : min(columns, STATES)].swapaxes(0, 1)
        num = few.shape[1]
        places = np.ndindex(len(few), num)
        headings = [f"text {text + 1}, state {state + 1} of {num}" for text, state in places]
        return written(self.text(few.reshape(-1, *self.shape)), headings, faint=MASK)

    def pages(
        self,
        items: np.ndarray,
        texts: Sequence[str],
        states: np.ndarray,
        made_by: Mapping[str, Any],
    ) -> dict[str, str]:
        """A page of texts that are filled step by step, with colours by the order."""
        pieces, last = [*self.pieces, None], self.text(states[-1])
        return {"denoise.html": unmasking_page(pieces, self._of(states), last, MASK, made_by)}


def as_utf8(piece: str) -> bytes:
    """The bytes of a text in which those that are no UTF-8 are surrogates."""
    return piece.encode("utf-8", "surrogateescape")


def fenced(text: str, language: str = "") -> str:
    """A fenced block of Markdown that the text cannot end (CommonMark, section 4.5)."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
