"""The files that a restoration leaves: samples, their mean, sheets, and pages to listen to."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffusion_jax.data.images import to_uint8
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sound_page import Column, listening_page
from diffusion_jax.from_config.restoration import Seen
from diffusion_jax.from_config.sounds import heard
from diffusion_jax.metrics.fidelity import psnr
from diffusion_jax.metrics.sound import snr
from diffusion_jax.restoration.linear import unmasked
from diffusion_jax.run.trained import Trained
from diffusion_jax.system.files import remove_tree, write_whole
from diffusion_jax.system.pictures import save_png, tile
from diffusion_jax.system.sounds import save_wav
from diffusion_jax.system.texts import shown

SHOWN = 6
"""Samples on a sheet."""
CELL = 256
"""Largest side of a picture on a sheet, in pixels."""
FULL = 0.5
"""Standard deviation that is white in `spread.png`, a quarter of the range [-1, 1]."""


class Restored(NamedTuple):
    """Samples of what an item could have been; all in [-1, 1]."""

    samples: np.ndarray  # `[K, ..., C]`
    weights: np.ndarray  # `[K]`, equal but for particles
    mean: np.ndarray  # `[..., C]`, with the least expected squared error
    spread: np.ndarray  # `[..., C]`, standard deviation


def save(
    model: Trained, folder: Path, path: Path, seen: Seen, found: Restored, blind: dict[str, Any]
) -> None:
    """Writes the samples and the sheet, and prints what was found.

    What was found of the damage, `blind`, is written into the passports.
    """
    settings = model.run.config.restore
    made_by = {**model.made_by(model.run.config.sample.seed), "restore": settings.to_dict()}
    made_by |= {"blind": blind} if blind else {}
    remove_tree(folder, missing_ok=True)
    folder.mkdir(parents=True)
    own = model.run.parts.dataset.kind
    kind = dataclasses.replace(own, shape=seen.shape)
    numbers = np.arange(len(found.samples))
    abouts = [
        {**made_by, "index": int(number), "weight": float(found.weights[number])}
        for number in numbers
    ]
    kind.save(folder, numbers, kind.encode(found.samples), abouts)
    if isinstance(kind, Sound):
        _save_sounds(folder, kind, path.name, seen, found, made_by)
    else:
        _save_pictures(folder, seen, found, made_by)
    print(
        f"{shown(path)}: {len(found.samples)} samples of step {model.step}, their mean and spread "
        f"({found.spread.mean():.3f} on average, at most {found.spread.max():.3f}, of a range of "
        f"2): {folder}"
    )
    if (effective := 1 / np.sum(found.weights**2)) < 0.99 * len(found.samples):
        print(f"the samples are weighted, and worth {effective:.1f} of one weight")
    if seen.truth is not None:
        print(_compared(seen, found, isinstance(kind, Sound)))


def _save_pictures(folder: Path, seen: Seen, found: Restored, made_by: Mapping[str, Any]) -> None:
    """Mean, spread, what was given, the mask if there is one, and a sheet."""
    spread = np.clip(2 * found.spread.mean(-1, keepdims=True) / FULL - 1, -1, 1)
    picture = np.asarray(seen.observation.y[0])
    pictures = {"mean": found.mean, "spread": spread, "given": picture}
    if (known := unmasked(seen.observation.operator)[1]).ndim:
        pictures["mask"] = 1 - 2 * np.asarray(known[0])
    for name, each in pictures.items():
        save_png(folder / f"{name}.png", to_uint8(each), {**made_by, "white": FULL})
    cells = [picture, *found.samples[:SHOWN], found.mean, spread]
    cells += [] if seen.truth is None else [seen.truth]
    sheet = tile(np.stack([_cell(cell, seen.shape) for cell in cells]), len(cells))
    save_png(folder / "sheet.png", sheet, made_by)


def _save_sounds(
    folder: Path, kind: Sound, name: str, seen: Seen, found: Restored, made_by: Mapping[str, Any]
) -> None:
    """Mean, what was given, the original if it is known, a sheet of spectrograms, and a page."""
    given = _heard(seen)
    original = {} if seen.truth is None else {"original": seen.truth}
    wholes = {"given": given, "mean": found.mean, **original}
    for word, x in wholes.items():
        save_wav(folder / f"{word}.wav", kind.encode(x), kind.rate, made_by)
    few = {f"restored {i}": x for i, x in enumerate(found.samples[:SHOWN])}
    shown_ = {"given": given, **few, **original}
    columns = [Column(word, kind.encode(x)[None]) for word, x in shown_.items()]
    page = listening_page(columns, kind.rate, [name], made_by)
    write_whole(folder / "listen.html", page.encode())
    sheet = kind.sheet(kind.encode(np.stack([*shown_.values()])), len(shown_))
    save_png(folder / "sheet.png", sheet, made_by)


def _heard(seen: Seen) -> np.ndarray:
    """What was given of a recording, as one of the shape of what is restored."""
    whole = np.zeros((1, *seen.shape), np.float32)
    found: np.ndarray = heard(seen.observation.operator, jnp.asarray(seen.observation.y), whole)[0]
    return found


def _cell(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A picture on a sheet: uint8, with the channels of `shape`, its longer side `CELL` at most."""
    image = to_uint8(picture)
    if image.shape[-1] < shape[-1]:
        image = image.repeat(shape[-1], -1)
    height, width = (side * min(CELL, max(shape[:2])) // max(shape[:2]) for side in shape[:2])
    if image.shape[:2] == (height, width):
        return image
    grey = shape[-1] == 1
    resized = Image.fromarray(image[..., 0] if grey else image).resize((width, height))
    return np.asarray(resized).reshape(height, width, shape[-1])


def _compared(seen: Seen, found: Restored, sound: bool) -> str:
    """How far the samples are from the truth, in words."""
    truth, observation = seen.truth, seen.observation
    assert truth is not None
    noise = np.asarray(observation.y - observation.operator(jnp.asarray(truth)[None])).std()
    both = np.stack([found.mean, *found.samples])
    wholes = np.broadcast_to(truth, both.shape)
    whole, *each = snr(wholes, both) if sound else psnr(both, wholes, data_range=2)
    least, most = found.samples.min(0), found.samples.max(0)
    open_ = most > least
    inside = ((least <= truth) & (truth <= most))[open_].mean() if open_.any() else 1.0
    num = len(found.samples)
    return (
        f"against the truth: mean {whole:.2f} dB, a sample {np.mean(each):.2f} dB; noise of "
        f"the observation {noise:.4f}; {inside:.2f} of what was restored lies between the least "
        f"and the largest sample ({(num - 1) / (num + 1):.2f} if they were exact)"
    )
