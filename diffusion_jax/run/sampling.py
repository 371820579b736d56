"""The stage that draws pictures."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.from_config import OPTIMISED
from diffusion_jax.report.pictures import captioned, read_made_by, save_gif, save_png, tile
from diffusion_jax.run.job import Job
from diffusion_jax.system.devices import is_main

COLUMNS = 10
TRIPLES = 4
"""Samples of a row, where each stands between two pictures."""
SHOWN = 100
"""Samples at most in a grid during training, and in the animation, as whole groups."""


def _shown(job: Job) -> int:
    group = job.generator.group
    return max(SHOWN // group, 1) * group


def draw_grid(job: Job, params: Any, step: int, path: Path) -> np.ndarray:
    """Draws the first `SHOWN` samples at most, saves them as a grid and returns it."""
    sample = job.config.sample
    index = sample.first_index + np.arange(min(sample.num_images, _shown(job)))
    cond = job.conditions.cond(index)
    images, _ = job.draw(params, sample.seed, index, cond)
    sheet = sheet_of(job, images, index, cond)
    path.parent.mkdir(parents=True, exist_ok=True)
    made_by = {**job.made_by(step, sample.seed), **job.span(index)}
    if sample.grid == OPTIMISED:
        made_by["grid"] = "uniform()"  # a search for each of these would take too long
    if is_main():
        save_png(path, sheet, made_by)
    return sheet


def sheet_of(
    job: Job, images: np.ndarray, index: np.ndarray, cond: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Samples from the first on as one picture: with texts a row for each, of its variants.

    In red are texts that no training image has. Samples that are given pictures stand each between
    what it was given and the original.
    """
    if job.conditions.given is not None:
        return tile(job.conditions.given.around(index, cond["image"], images), 3 * TRIPLES)
    texts = job.conditions.texts
    if not texts:
        return tile(images, COLUMNS)
    rows = min(len(texts), len(images))
    columns = len(images) // rows
    # Sample i is asked to show text i modulo their number.
    by_text = images[: rows * columns].reshape(columns, rows, *images.shape[1:]).swapaxes(0, 1)
    captions = job.parts.dataset.train_captions
    known = set(captions.texts if captions else ())
    unseen = [text not in known for text in texts[:rows]]
    return captioned(by_text.reshape(-1, *images.shape[1:]), texts[:rows], columns, unseen)


def sample(job: Job, again: bool) -> None:
    """Draws `sample.num_images`; single pictures, a grid, a strip and an animation."""
    folder = job.workdir / "samples"
    sample = job.config.sample
    index = sample.first_index + np.arange(sample.num_images)
    cond = job.conditions.cond(index)
    made_by = job.made_by(job.step_to_use(), sample.seed)
    if not again and read_made_by(folder / "grid.png") == {**made_by, **job.span(index)}:
        return
    params, step = job.restore()
    num_states = len(job.generator.times)
    if sample.strip > num_states and is_main():
        print(
            f"warning: sample.strip={sample.strip}: from noise to result there are {num_states} "
            f"pictures, as sample.steps={sample.steps}",
            file=sys.stderr,
        )
    strip = min(sample.strip, num_states)
    keep = (num_states - 1) // (strip - 1)
    shown = _shown(job)
    first, rest = (
        jax.tree.map(lambda array, part=part: array[part], (index, cond))
        for part in (slice(None, shown), slice(shown, None))
    )
    images, states = job.draw(params, sample.seed, first[0], first[1], keep)
    if len(rest[0]):
        more, _ = job.draw(params, sample.seed, rest[0], rest[1])
        images = np.concatenate([images, more])
    if not is_main():
        return
    singles = folder / "images"
    shutil.rmtree(singles, ignore_errors=True)
    singles.mkdir(parents=True)
    labels = cond.get("label", [None] * len(index))
    prompts = job.conditions.prompts(index)
    for row, (number, image, label) in enumerate(zip(index, images, labels, strict=True)):
        what: dict[str, Any] = {
            "index": int(number),
            "label": None if label is None else int(label),
        }
        if prompts is not None:
            what["prompt"] = prompts[row]
        save_png(singles / f"{number:06d}.png", image, {**made_by, **what})
    span = {**made_by, **job.span(index)}
    states = states[np.linspace(0, len(states) - 1, strip).round().astype(int)]
    few = states[:, :COLUMNS].swapaxes(0, 1)
    strip = tile(few.reshape(-1, *few.shape[2:]), columns=few.shape[1])
    save_png(folder / "trajectory.png", strip, span)
    save_gif(folder / "denoise.gif", states, COLUMNS)
    # Last: it says that all of them are there.
    save_png(folder / "grid.png", sheet_of(job, images, index, cond), span)
    print(f"{len(index)} samples of step {step} are in {folder}")
