"""What a frozen encoder says of a data set's texts: computed once, kept on disk."""

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.system.files import written_whole
from diffusion_jax.text.encoder import TextEncoder

CHUNK = 1024  # texts between two writes


class _Arrays(NamedTuple):
    """The files of a table, the first two through memory maps.

    Attributes:
        text: float32 [T, D], the features of all tokens of all distinct texts, end to end.
        pooled: float32 [U, P], the vectors of the distinct texts.
        starts: int64 [U + 1], where each text begins in `text`.
        rows: int64 [N], which of the distinct texts each text is.
        cut: bool [N], which texts were too long.
    """

    text: np.ndarray
    pooled: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    cut: np.ndarray


@dataclasses.dataclass(frozen=True)
class TextTable:
    """Embedded texts by their numbers, read from files when they are asked for.

    It may be pickled, for processes that load data: each opens the files for itself.

    Attributes:
        stem: what the paths of the files begin with.
        length: L, tokens of a text, at most.
    """

    stem: Path
    length: int

    def __len__(self) -> int:
        """N, the number of texts."""
        return len(self._arrays.rows)

    @property
    def cut(self) -> np.ndarray:
        """Bool [N], which texts were too long and end early."""
        return self._arrays.cut

    def __call__(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Texts `ids` int [B]: `text` float32 [B, L, D] and `pooled` float32 [B, P].

        -1 is no text: zeros, as after the last token of a text.
        """
        found = self._arrays
        text = np.zeros((len(ids), self.length, found.text.shape[1]), np.float32)
        pooled = np.zeros((len(ids), found.pooled.shape[1]), np.float32)
        for place, number in enumerate(ids):
            if number >= 0:
                row = found.rows[number]
                tokens = found.text[found.starts[row] : found.starts[row + 1]]
                text[place, : len(tokens)], pooled[place] = tokens, found.pooled[row]
        return {"text": text, "pooled": pooled}

    def path(self, part: str) -> Path:
        """The path of one of its files: `text.npy`, `pooled.npy`, `index.npz`."""
        return self.stem.with_name(f"{self.stem.name}.{part}")

    @functools.cached_property
    def _arrays(self) -> _Arrays:
        with np.load(self.path("index.npz")) as index:
            starts, rows, cut = (index[name] for name in ("starts", "rows", "cut"))
        text, pooled = (np.load(self.path(f"{part}.npy"), "r") for part in ("text", "pooled"))
        if (len(text), len(pooled)) != (starts[-1], len(starts) - 1):
            raise ValueError(f"{self.stem}: files of different tables")
        return _Arrays(text, pooled, starts, rows, cut)

    def __getstate__(self) -> dict[str, Any]:
        return {"stem": self.stem, "length": self.length}

    def is_whole(self) -> bool:
        """Whether its files are there, and none is cut short."""
        try:
            return bool(len(self))
        except (FileNotFoundError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return False


def embed_all(
    encoder: TextEncoder,
    texts: Sequence[str],
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> TextTable:
    """All texts of a data set, embedded; read from `folder` if they were before.

    Only tokens that are there are kept, of texts that differ: float32, 4 D bytes a token.

    Args:
        encoder: frozen; its identity and the texts tell the files from all others.
        texts: 1 or more.
        folder: where such files are kept.
        say: is told before the encoder runs, which for many texts takes minutes.
    """
    key = hashlib.sha256(json.dumps([encoder.identity, *texts]).encode()).hexdigest()[:16]
    table = TextTable(folder / f"texts_{key}", encoder.length)
    if table.is_whole():
        return table
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    say(f"embedding {len(distinct):,} texts with {encoder.name}, once")
    tokens = encoder.tokens(list(distinct))
    there = tokens.ids >= 0
    starts = np.concatenate([[0], there.sum(1).cumsum()])
    rows = np.array([distinct[text] for text in texts])
    with (
        written_whole(table.path("text.npy")) as text_part,
        written_whole(table.path("pooled.npy")) as pooled_part,
    ):
        shapes = {text_part: (int(starts[-1]), encoder.width)}
        shapes[pooled_part] = (len(distinct), encoder.pooled_width)
        text, pooled = (
            np.lib.format.open_memmap(part, "w+", np.float32, shape)
            for part, shape in shapes.items()
        )
        for start in range(0, len(distinct), CHUNK):
            now = slice(start, start + CHUNK)
            found = encoder.encode(tokens.ids[now])
            ends = starts[now.start], starts[min(now.stop, len(distinct))]
            text[ends[0] : ends[1]] = found["text"][there[now]]
            pooled[now] = found["pooled"]
        del text, pooled  # writes what is left
    with written_whole(table.path("index.npz")) as part, part.open("wb") as file:
        np.savez(file, starts=starts, rows=rows, cut=tokens.cut[rows])
    return table
