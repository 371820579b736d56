"""Images whose pixels are tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffusion_jax.data.images import Images, ShownAsImages
from diffusion_jax.data.tokens import Tokens

MASK_COLOUR = (150, 190, 240)


@dataclass(frozen=True)
class Levels(ShownAsImages, Tokens):
    """Square grey images as tokens int32 `[L]`: the level of each pixel, row by row.

    They are written and shown as images, in which masks are blue.
    """

    noun: ClassVar[str] = "grey images"
    unit: ClassVar[str] = "pixel"
    shown: ClassVar[int] = 100
    placed: ClassVar[bool] = True

    @property
    def words(self) -> str:
        side = math.isqrt(self.shape[0])
        return f"{self.noun} of {side}x{side} pixels of {self.vocabulary} levels"

    @property
    def _images(self) -> Images:
        side = math.isqrt(self.shape[0])
        return Images((side, side, 3))

    def _pictures(self, items: np.ndarray) -> np.ndarray:
        """Images uint8 `[..., H, W, 3]` of items `[..., L]`."""
        greys = np.rint(np.linspace(0, 255, self.vocabulary)).astype(np.uint8)
        colours = np.concatenate([greys[:, None].repeat(3, 1), np.array([MASK_COLOUR], np.uint8)])
        return colours[self._of(items)].reshape(*items.shape[:-1], *self._images.shape)

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        self._images.save(folder, index, self._pictures(items), made_by)

    def pages(
        self,
        items: np.ndarray,
        texts: Sequence[str],
        states: np.ndarray,
        made_by: Mapping[str, Any],
    ) -> dict[str, str]:
        return {}
