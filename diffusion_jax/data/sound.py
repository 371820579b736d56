"""Sounds: recordings of one rate and length, how they are written, shown and listened to."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images, ShownAsImages
from diffusion_jax.data.kind import View
from diffusion_jax.data.restored import SHOWN, RestoredItem
from diffusion_jax.data.sound_page import Column, listening_page
from diffusion_jax.data.sound_reading import SUFFIXES, look_at, read_sound
from diffusion_jax.data.spectrograms import BANDS, COLUMNS, log_mel_view, spectrograms
from diffusion_jax.metrics.sound import snr
from diffusion_jax.system.files import each_file, write_whole
from diffusion_jax.system.pictures import save_png
from diffusion_jax.system.sounds import FULL, save_wav
from diffusion_jax.system.texts import shown

CHANNELS = {1: "mono", 2: "stereo"}


@dataclasses.dataclass(frozen=True)
class Sound(ShownAsImages):
    """Sounds int16 `[T, C]`; `x` is in [-1, 1], the items divided by 2^15 exactly."""

    rate: int  # samples per second, Hz
    noun: ClassVar[str] = "sounds"
    stored: ClassVar[type] = np.int16
    limit: ClassVar[float | None] = 1.0
    shown: ClassVar[int] = 20

    @property
    def words(self) -> str:
        """Such as "sounds of 1.0 s at 16,000 Hz", or "sounds of 1.0 s at 44,100 Hz in stereo"."""
        length, channels = self.shape
        seconds = length / self.rate
        size = f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"
        several = "" if channels == 1 else f" in {of_channels(channels)}"
        return f"{self.noun} of {size} s at {self.rate:,} Hz{several}"

    def decode(self, items: Any) -> Any:
        return items.astype(np.float32) * np.float32(1 / FULL)

    def encode(self, x: Any) -> np.ndarray:
        """Items of `x`: rounded, and clipped at the ends of 16 bits (`clipped` counts these)."""
        steps = np.rint(np.asarray(x, np.float32) * FULL)
        return np.clip(steps, -FULL, FULL - 1).astype(self.stored)

    @property
    def suffixes(self) -> tuple[str, ...]:
        return SUFFIXES

    def check_file(self, path: Path) -> None:
        look_at(path)

    def read_file(self, path: Path, channels: int = 0, factor: int = 1) -> np.ndarray:
        """A recording float32 `[T, C]`; nothing is resampled or mixed: a model knows its own rate.

        Raises:
            DataError: the file cannot be read, or has another rate or other channels.
        """
        x, rate = read_sound(path)
        channels = channels or self.shape[-1]
        if rate * factor != self.rate:
            raise self._unfit(path, f"is at {rate:,} Hz: resample it to {self.rate // factor:,} Hz")
        if x.shape[1] != channels:
            found, needed = of_channels(x.shape[1]), of_channels(channels)
            raise self._unfit(path, f"is in {found}, and must be in {needed}")
        return x

    def open_file(self, path: Path) -> np.ndarray:
        """The beginning of a recording; it is not padded."""
        x, length = self.read_file(path), self.shape[0]
        if len(x) < length:
            raise self._unfit(path, f"has {len(x):,} of the {length:,} samples that are needed")
        return self.encode(x[:length])

    def _unfit(self, path: Path, why: str) -> DataError:
        return DataError(f"{shown(path)} does not fit a model of {self.words}; it {why}.")

    def clipped(self, items: np.ndarray) -> np.ndarray:
        """Number of samples at either end of 16 bits, int `[N]`, of items `[N, T, C]`."""
        found: np.ndarray = ((items == -FULL) | (items == FULL - 1)).sum((1, 2))
        return found

    @property
    def view(self) -> View:
        """Its log-mel spectrum: two sounds that are alike may differ in all samples."""
        return log_mel_view(self.shape, self.rate)

    @property
    def blank(self) -> np.ndarray:
        return np.zeros(self.shape, self.stored)

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """Writes one WAV per item; the passport also counts its clipped samples, if any are."""
        whose = {
            folder / f"{number:06d}.wav": (item, {**about, **({"clipped": int(n)} if n else {})})
            for number, item, about, n in zip(
                index, items, made_by, self.clipped(items), strict=True
            )
        }

        def write(path: Path) -> None:
            item, about = whose[path]
            save_wav(path, item, self.rate, about)

        each_file(write, list(whose), "writing sounds")

    def save_restored(self, folder: Path, found: RestoredItem, made_by: Mapping[str, Any]) -> None:
        """Mean, what was given, the original if it is there, spectrograms, and a page."""
        original = {} if found.original is None else {"original": found.original}
        for word, x in {"given": found.given, "mean": found.mean, **original}.items():
            save_wav(folder / f"{word}.wav", self.encode(x), self.rate, made_by)
        few = {f"restored {i}": x for i, x in enumerate(found.samples[:SHOWN])}
        each = {"given": found.given, **few, **original}
        columns = [Column(word, self.encode(x)[None]) for word, x in each.items()]
        page = listening_page(columns, self.rate, [found.name], made_by)
        write_whole(folder / "listen.html", page.encode())
        sheet = self.sheet(self.encode(np.stack([*each.values()])), len(each))
        save_png(folder / "sheet.png", sheet, made_by)

    def decibels(self, originals: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The signal-to-noise ratio."""
        return snr(originals, x)

    def _pictures(self, items: np.ndarray) -> np.ndarray:
        """Spectrograms uint8 `[..., H, W, 3]` of items `[..., T, C]`."""
        flat = items.reshape(-1, *self.shape)
        images = spectrograms(self.decode(flat), self.rate)
        return images.reshape(*items.shape[: items.ndim - 2], *images.shape[1:])

    @property
    def _images(self) -> Images:
        return Images((BANDS, COLUMNS, 3))

    def pages(
        self,
        items: np.ndarray,
        texts: Sequence[str],
        states: np.ndarray,
        made_by: Mapping[str, Any],
    ) -> dict[str, str]:
        """A page of players."""
        return {"listen.html": listening_page([Column("", items)], self.rate, texts, made_by)}

    def page_of_pairs(
        self, columns: Mapping[str, np.ndarray], texts: Sequence[str], made_by: Mapping[str, Any]
    ) -> str:
        """A page of players in columns."""
        each = [Column(heading, items) for heading, items in columns.items()]
        return listening_page(each, self.rate, texts, made_by)


def of_channels(number: int) -> str:
    """Such as "mono"."""
    return CHANNELS.get(number, f"{number} channels")
