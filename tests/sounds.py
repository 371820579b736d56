"""Recordings for tests."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from diffusion_jax.data import ArraySource, Captions, Dataset, Split
from diffusion_jax.data.kind import Kind

RATE = 16_000


@dataclasses.dataclass(frozen=True)
class Recordings(Kind):
    """Recordings int16 `[T, C]`."""

    rate: int = RATE
    noun: ClassVar[str] = "sounds"
    stored: ClassVar[type] = np.int16
    limit: ClassVar[float | None] = 1.0

    def decode(self, items: Any) -> Any:
        return items.astype(np.float32) / np.float32(2**15)

    def encode(self, x: Any) -> np.ndarray:
        steps = np.clip(np.rint(np.asarray(x) * 2**15), -(2**15), 2**15 - 1)
        return steps.astype(np.int16)

    def sheet(self, items: np.ndarray, *_: Any) -> np.ndarray:
        return np.zeros((len(items), 8, 1), np.uint8)

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        return self.sheet(states)

    def save(self, *_: Any) -> None:
        """Nothing."""


def recordings(
    length: int = 64, num: int = 12, texts: bool = False, rate: int = RATE, seed: int = 0
) -> Dataset:
    """Smooth noise of a different level each, in one channel, without classes."""
    rng = np.random.default_rng(seed)
    kind = Recordings((length, 1), rate)

    def split(n: int) -> Split:
        x = np.cumsum(rng.standard_normal((n, length, 1)), 1)
        x = 0.3 * rng.uniform(0.2, 1, (n, 1, 1)) * x / np.abs(x).max((1, 2), keepdims=True)
        captions = Captions.of([[f"Text {chr(97 + i)}."] for i in range(n)]) if texts else None
        return Split(ArraySource(kind.encode(x), np.zeros(n, np.int32)), captions)

    return Dataset("recordings", kind, {"train": split(num), "heldout": split(num)})
