"""From texts to the arrays that condition a network, however it reads them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from diffusion_jax.text.cache import embed_all
from diffusion_jax.text.encoder import TextEncoder
from diffusion_jax.text.tokens import NONE, byte_tokens
from diffusion_jax.types import Embed


@dataclasses.dataclass(frozen=True)
class Reader:
    """What becomes of texts before a network gets them."""

    # frozen, its features are what the network reads; None for tokens that are bytes, which a part
    # of the network reads
    encoder: TextEncoder | None
    length: int  # tokens of a text at most

    @property
    def identity(self) -> str:
        """What tells it from other readers."""
        return self.encoder.identity if self.encoder else f"bytes, {self.length} at most"

    @property
    def none(self) -> dict[str, np.ndarray]:
        """Conditioning on no text, arrays `[1, ...]`."""
        if self.encoder is None:
            return {"tokens": np.full((1, self.length), NONE, np.int32)}
        return {
            "text": np.zeros((1, self.length, self.encoder.width), np.float32),
            "pooled": np.zeros((1, self.encoder.pooled_width), np.float32),
        }

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Conditioning on texts: `text` and `pooled`, or `tokens`; arrays `[N, ...]`."""
        if self.encoder:
            return self.encoder(texts)
        return {"tokens": byte_tokens(texts, self.length).ids}

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        """Which texts are too long and end early: bool `[N]`."""
        made = self.encoder.tokens(texts) if self.encoder else byte_tokens(texts, self.length)
        return made.cut

    def embed_all(self, texts: Sequence[str], folder: Path, say: Callable[[str], None]) -> Embed:
        """The same for all texts, 1 or more, of a data set, by their numbers.

        They are kept in `folder` if it took long; `say` is told before they are made.
        """
        if self.encoder:
            return embed_all(self.encoder, texts, folder, say)
        return functools.partial(_rows, byte_tokens(texts, self.length).ids)


def _rows(tokens: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"tokens": tokens[ids]}
