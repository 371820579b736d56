"""What codecs of overlapping frames of sound share: how many there are, and of which sizes."""

import dataclasses
from typing import Self


class Frames:
    """Base of codecs that are dataclasses with these fields, and add frames up by `istft`."""

    length: int  # samples T of an item
    channels: int  # C of an item
    size: int  # samples of the window, even
    hop: int  # samples between frames
    multiple: int  # the number of frames is a multiple of this, for networks that halve it

    def check_frames(self) -> None:
        """Raises a ValueError where frames cannot be added to a sound again."""
        if self.size % 2:
            raise ValueError(f"size={self.size} must be even")
        if self.hop > self.size // 2:
            raise ValueError(
                f"hop={self.hop} must be at most half of size={self.size}: frames overlap"
            )

    def resized(self, shape: tuple[int, ...]) -> Self:
        """The same for sound of another shape `[T, C]`."""
        return dataclasses.replace(self, length=shape[0], channels=shape[1])  # type: ignore[type-var]

    @property
    def filled(self) -> int:
        """Number of frames of the sound; those after them are silence."""
        return 1 + self.length // self.hop

    @property
    def frames(self) -> int:
        """Number of frames."""
        return -(-self.filled // self.multiple) * self.multiple
