"""Embeddings of a data set's texts by a frozen encoder: computed once, cached on disk."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.system.cache import cached
from diffusion_jax.system.progress import stage
from diffusion_jax.text.encoder import ENCODING, TextEncoder

CHUNK = 1024  # texts between two writes


@dataclasses.dataclass(frozen=True)
class TextTable:
    """Embeddings of texts by number, read from a file on access.

    It can be pickled for processes that load data: each opens the file itself.
    """

    # content: int64 [N + 1] as `.npy`, offsets of the texts' values; then these values, float32,
    # of each text the features [D] of its tokens without padding, and its pooled embedding [P]
    path: Path
    length: int  # L, tokens of a text, at most
    width: int  # D
    pooled_width: int  # P

    def __call__(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Embeddings of texts `ids` int [B]: `text` float32 [B, L, D], `pooled` float32 [B, P].

        -1 is no text: zeros, like padding.
        """
        starts, numbers = self.arrays
        text = np.zeros((len(ids), self.length, self.width), np.float32)
        pooled = np.zeros((len(ids), self.pooled_width), np.float32)
        for place, i in enumerate(ids):
            if i >= 0:
                found = numbers[starts[i] : starts[i + 1]]
                tokens = found[: -self.pooled_width].reshape(-1, self.width)
                text[place, : len(tokens)] = tokens
                pooled[place] = found[-self.pooled_width :]
        return {"text": text, "pooled": pooled}

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Both arrays of the file, the second through a memory map."""
        with self.path.open("rb") as file:
            starts = np.load(file)
            return starts, np.memmap(file, np.float32, "r", file.tell(), (int(starts[-1]),))

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def embed_all(
    encoder: TextEncoder,
    texts: Sequence[str],
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> TextTable:
    """Embeddings of all texts of a data set, cached in `folder`.

    The texts, at least one, are distinct; they and the identity of the frozen encoder identify the
    file. Padding is not stored: float32, 4 D bytes a token. `say` gets a line before the encoder
    runs, which takes minutes for many texts.
    """

    def read(path: Path) -> TextTable:
        table = TextTable(path, encoder.length, encoder.width, encoder.pooled_width)
        if len(table.arrays[0]) != len(texts) + 1:
            raise ValueError(f"{path} is of other texts")
        return table

    def write(path: Path) -> None:
        say(f"embedding {len(texts):,} texts with {encoder.name}, once")
        tokens = encoder.tokens(texts).ids
        counts = (tokens >= 0).sum(1)
        with path.open("wb") as file, stage(ENCODING, len(texts)):
            sizes = counts * encoder.width + encoder.pooled_width
            np.save(file, np.concatenate([[0], sizes.cumsum()]))
            for start in range(0, len(texts), CHUNK):
                now = slice(start, start + CHUNK)
                found = encoder.encode(tokens[now])
                for count, text, pooled in zip(counts[now], *found.values(), strict=True):
                    file.write(text[:count].tobytes() + pooled.tobytes())

    return cached(folder, json.dumps([encoder.identity, *texts]), ".texts", read, write)
