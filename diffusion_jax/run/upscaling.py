"""The stage that enlarges a picture, by a network that was trained on low resolutions."""

from pathlib import Path

import jax
import numpy as np

from diffusion_jax.data import open_image
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.image_conditions import LowResolution
from diffusion_jax.from_config import ConfigError
from diffusion_jax.generation.labels import as_cond
from diffusion_jax.run.given import SEED
from diffusion_jax.run.sampling import save_items
from diffusion_jax.run.trained import Run
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.pictures import save_png

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


def upscale(run: Run) -> None:
    """Draws `sample.num_images` enlarged pictures of one: `upscaled.png`, that one first.

    Of a label or a text only if `sample.labels` or `sample.prompts` say so.
    """
    asked, conditions, kind = run.config.sample, run.conditions, run.parts.dataset.kind
    condition = run.parts.task.condition
    assert isinstance(condition, LowResolution)  # others are refused before
    height, width, channels = kind.shape
    factor = condition.factor
    shape = height // factor, width // factor, channels
    low = opened("sample.upscale.image", asked.upscale.image, shape)
    model = run.trained()
    index = asked.first_index + np.arange(asked.num_images)
    keys = sample_keys(jax.random.key(SEED), index)
    z_0 = np.broadcast_to(kind.decode(low), (len(index), *low.shape))
    cond = jax.device_get(jax.jit(condition.of_low)(z_0, keys))
    if asked.labels != "all":
        cond |= as_cond(conditions.labels(index))
    prompts = conditions.prompts(index) if asked.prompts else None
    if prompts is not None:
        cond |= conditions.read(prompts)
    items, _ = model.items(asked.seed, index, cond)
    if not is_main():
        return
    words = {"prompts": list(asked.prompts)} if run.parts.task.reader else {}
    made_by = {**model.made_by(asked.seed), **words, "given": asked.upscale.image}
    each = [
        {**made_by, "index": int(number)} | ({"prompt": prompts[row]} if prompts else {})
        for row, number in enumerate(index)
    ]
    folder = run.workdir / "samples" / "upscaled"
    save_items(run, folder, index, items, each)
    enlarged = low.repeat(factor, axis=0).repeat(factor, axis=1)
    path = folder.with_suffix(".png")
    sheet = kind.sheet(np.concatenate([enlarged[None], items]), COLUMNS)
    save_png(path, sheet, {**made_by, **run.span(index)})
    print(f"{len(index)} enlarged pictures by step {model.step}, the given one first: {path}")
