"""Conversion of texts to the conditioning of a network."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from diffusion_jax.text.cache import embed_all
from diffusion_jax.text.encoder import TextEncoder
from diffusion_jax.text.tokens import NONE, Tokeniser, byte_rest, byte_tokens
from diffusion_jax.types import Embed


@dataclasses.dataclass(frozen=True)
class Reader:
    """Converts texts to conditioning arrays."""

    # frozen text encoder, whose features are the conditioning; None for tokens, which an encoder
    # inside the network takes
    encoder: TextEncoder | None
    length: int  # largest number of tokens in a text
    # whether no text is the encoded empty text, as in Stable Diffusion, instead of zeros
    empty: bool = False
    # of the encoder inside the network, which pads texts as CLIP does; None for bytes
    tokeniser: Tokeniser | None = None

    @property
    def identity(self) -> str:
        """Unique description of the reader."""
        if self.encoder:
            return self.encoder.identity
        own = f"tokens {self.tokeniser.digest}" if self.tokeniser else "bytes"
        return f"{own}, {self.length} at most"

    @property
    def pads(self) -> bool:
        """Whether texts are padded to `length`, so that a text without words is a text, too."""
        return self.encoder.pads if self.encoder else self.tokeniser is not None

    @functools.cached_property
    def none(self) -> dict[str, np.ndarray]:
        """Conditioning on no text, arrays `[1, ...]`."""
        if self.empty:
            return self([""])
        if self.encoder is None:
            return {"tokens": np.full((1, self.length), NONE, np.int32)}
        return {
            "text": np.zeros((1, self.length, self.encoder.width), np.float32),
            "pooled": np.zeros((1, self.encoder.pooled_width), np.float32),
        }

    @property
    def no_text(self) -> dict[str, np.ndarray]:
        """What stands for no text where that is not zeros: arrays `[1, ...]`."""
        return self.none if self.empty else {}

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Conditioning on texts: `text` and `pooled`, or `tokens`; arrays `[N, ...]`."""
        if self.encoder:
            return self.encoder(texts)
        return {"tokens": self._tokens(texts)}

    def _tokens(self, texts: Sequence[str]) -> np.ndarray:
        read = self.tokeniser.filled if self.tokeniser else byte_tokens
        return read(texts, self.length).ids

    def rest(self, text: str) -> str:
        """The end of a text that is too long, and is not read."""
        tokeniser = self.encoder.tokeniser if self.encoder else self.tokeniser
        return tokeniser.rest(text, self.length) if tokeniser else byte_rest(text, self.length)

    def embed_all(self, texts: Sequence[str], folder: Path, say: Callable[[str], None]) -> Embed:
        """The conditioning of all texts (at least one) of a data set, by their numbers.

        Results that took long are cached in `folder`; `say` is called before they are computed.
        """
        if self.encoder:
            return embed_all(self.encoder, texts, folder, say)
        return functools.partial(_rows, self._tokens(texts))


def _rows(tokens: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"tokens": tokens[ids]}
