"""The files that a restoration leaves: samples, their mean, sheets, and pages to listen to."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Kind
from diffusion_jax.data.restored import RestoredItem
from diffusion_jax.from_config.restoration import Seen
from diffusion_jax.from_config.sounds import heard
from diffusion_jax.restoration.linear import unmasked
from diffusion_jax.run.trained import Trained
from diffusion_jax.system.files import remove_tree
from diffusion_jax.system.texts import shown


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
    y, known = seen.observation.y, unmasked(seen.observation.operator)[1]
    given = np.asarray(y) if kind.any_size else _heard(seen)
    item = RestoredItem(
        *(path.name, given[0], found.samples, found.mean, found.spread),
        known=np.asarray(known[0]) if known.ndim else None,
        original=seen.truth,
    )
    kind.save_restored(folder, item, made_by)
    print(
        f"{shown(path)}: {len(found.samples)} samples of step {model.step}, their mean and spread "
        f"({found.spread.mean():.3f} on average, at most {found.spread.max():.3f}, of a range of "
        f"2): {folder}"
    )
    if (effective := 1 / np.sum(found.weights**2)) < 0.99 * len(found.samples):
        print(f"the samples are weighted, and worth {effective:.1f} of one weight")
    if seen.truth is not None:
        print(_compared(kind, seen, found))


def _heard(seen: Seen) -> np.ndarray:
    """What was given as items of the shape of what is restored, `[1, ..., C]`."""
    whole = np.zeros((1, *seen.shape), np.float32)
    return heard(seen.observation.operator, jnp.asarray(seen.observation.y), whole)


def _compared(kind: Kind, seen: Seen, found: Restored) -> str:
    """How far the samples are from the truth, in words."""
    truth, observation = seen.truth, seen.observation
    assert truth is not None
    noise = np.asarray(observation.y - observation.operator(jnp.asarray(truth)[None])).std()
    both = np.stack([found.mean, *found.samples])
    wholes = np.broadcast_to(truth, both.shape)
    whole, *each = kind.decibels(wholes, both)
    least, most = found.samples.min(0), found.samples.max(0)
    open_ = most > least
    inside = ((least <= truth) & (truth <= most))[open_].mean() if open_.any() else 1.0
    num = len(found.samples)
    return (
        f"against the truth: mean {whole:.2f} dB, a sample {np.mean(each):.2f} dB; noise of "
        f"the observation {noise:.4f}; {inside:.2f} of what was restored lies between the least "
        f"and the largest sample ({(num - 1) / (num + 1):.2f} if they were exact)"
    )
