"""The stage that enlarges a picture, by a network that was trained on low resolutions."""

import shutil
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.data import open_image, to_float
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.image_conditions import LowResolution
from diffusion_jax.from_config import ConfigError
from diffusion_jax.generation.generator import as_cond
from diffusion_jax.report.pictures import save_png, tile
from diffusion_jax.run.given import SEED
from diffusion_jax.run.job import Job
from diffusion_jax.system.devices import is_main

COLUMNS = 5


def opened(key: str, file: str, shape: tuple[int, ...]) -> np.ndarray:
    """The picture that the setting `key` names, uint8 of a `shape` [H, W, C].

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return open_image(Path(file).expanduser(), shape)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}={file!r} cannot be read: {error}") from error


def upscale(job: Job) -> None:
    """Draws `sample.num_images` enlarged pictures of one: `upscaled.png`, that one first.

    Of a label or a text only if `sample.labels` or `sample.prompts` say so.
    """
    asked, conditions = job.config.sample, job.conditions
    condition = job.parts.condition
    assert isinstance(condition, LowResolution)  # others are refused before
    height, width, channels = job.generator.shape
    factor = condition.factor
    shape = height // factor, width // factor, channels
    low = opened("sample.upscale.image", asked.upscale.image, shape)
    params, step = job.restore()
    index = asked.first_index + np.arange(asked.num_images)
    keys = sample_keys(jax.random.key(SEED), index)
    z_0 = np.broadcast_to(to_float(low), (len(index), *low.shape))
    cond = jax.device_get(jax.jit(condition.of_low)(z_0, keys))
    if asked.labels != "all":
        cond |= as_cond(conditions.labels(index))
    prompts = conditions.prompts(index) if asked.prompts else None
    if prompts is not None:
        cond |= conditions.read(prompts)
    images, _ = job.draw(params, asked.seed, index, cond)
    if not is_main():
        return
    words = {"prompts": list(asked.prompts)} if job.parts.reader else {}
    made_by = {**job.made_by(step, asked.seed), **words, "given": asked.upscale.image}
    singles = job.workdir / "samples" / "upscaled"
    shutil.rmtree(singles, ignore_errors=True)
    singles.mkdir(parents=True)
    for row, (number, image) in enumerate(zip(index, images, strict=True)):
        what = {"index": int(number)} | ({"prompt": prompts[row]} if prompts else {})
        save_png(singles / f"{number:06d}.png", image, {**made_by, **what})
    enlarged = low.repeat(factor, axis=0).repeat(factor, axis=1)
    path = singles.with_suffix(".png")
    sheet = tile(np.concatenate([enlarged[None], images]), COLUMNS)
    save_png(path, sheet, {**made_by, **job.span(index)})
    print(f"{len(index)} enlarged pictures by step {step}, the given one first: {path}")
