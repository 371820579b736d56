"""The stage that draws variants of a picture, or pictures between two texts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import to_float, to_uint8
from diffusion_jax.from_config import Config, ConfigError
from diffusion_jax.generation.generator import Wanted, in_batches
from diffusion_jax.generation.variations import between, inverted, renoised
from diffusion_jax.report.pictures import captioned, save_gif, save_png, tile
from diffusion_jax.run.job import Job
from diffusion_jax.run.sampling import sample
from diffusion_jax.run.upscaling import opened, upscale
from diffusion_jax.system.devices import is_main

ROWS = 4
"""Ways from one text to another, each of noise of its own."""
WAYS = {"noise": renoised, "inversion": inverted}
COLUMNS = 8


def picture(job: Job) -> np.ndarray:
    """The picture that is to be varied, in the network's size: uint8 `[H, W, C]`.

    Raises:
        ConfigError: it cannot be, or cannot be read.
    """
    settings = job.config.sample.vary
    if settings.by not in WAYS:
        raise ConfigError(f"sample.vary.by={settings.by!r} must be one of {', '.join(WAYS)}")
    if not 0 <= settings.strength <= 1 or (settings.by == "noise" and not settings.strength):
        raise ConfigError(
            f"sample.vary.strength={settings.strength} must lie in [0, 1]; with by='noise' above 0"
        )
    return opened("sample.vary.image", settings.image, job.generator.shape)


def vary(job: Job) -> None:
    """Draws `sample.num_images` variants of a picture: `variants.png`, the picture first."""
    asked, settings = job.config.sample, job.config.sample.vary
    original = picture(job)
    params, step = job.restore()
    index = asked.first_index + np.arange(asked.num_images)
    cond = (
        job.conditions.asked(index)
        if asked.prompts or not job.parts.reader
        else job.conditions.read([""] * len(index))
    )
    way = functools.partial(WAYS[settings.by], job.generator)

    wanted = job.wanted(index, cond)

    @jax.jit
    def program(whole: Any, each: Any) -> Any:
        params, key, x_0, scale, networks = whole
        beside = each.beside._replace(networks=networks)
        batch = each._replace(scale=scale, beside=beside)
        return way(params, key, batch, x_0, settings.strength)

    whole = params, jax.random.key(asked.seed), to_float(original), wanted.scale, job.networks
    each = wanted._replace(scale=None, beside=wanted.beside._replace(networks={}))
    found = in_batches(program, whole, each, asked.batch_size)
    if not is_main():
        return
    images = np.concatenate([original[None], to_uint8(found)])
    made_by = {**job.made_by(step, asked.seed), **job.span(index), "vary": settings.to_dict()}
    path = job.workdir / "samples" / "variants.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, tile(images, COLUMNS), made_by)
    print(f"{len(index)} variants by step {step}, the picture first: {path}")


def interpolate(job: Job) -> None:
    """Draws rows of pictures from one text to another: `interpolation.png` and `.gif`."""
    asked = job.config.sample
    if len(asked.interpolate) != 2:
        raise ConfigError(f"sample.interpolate={tuple(asked.interpolate)} must be two texts")
    if asked.frames < 2:
        raise ConfigError(f"sample.frames={asked.frames} must be at least 2")
    reader = job.parts.reader
    if reader is None or reader.encoder is None:
        raise ConfigError(
            "sample.interpolate mixes embedded texts, and needs a network with a frozen text "
            f"encoder: text.name is {job.config.text.name!r}"
        )
    if job.judge:
        raise ConfigError("sample.interpolate and sample.guidance.likeness do not go together")
    params, step = job.restore()
    shares = jnp.linspace(0, 1, asked.frames)
    conds = [job.conditions.read([text]) for text in asked.interpolate]
    beside = job.wanted(np.arange(asked.frames), {}).beside

    @jax.jit
    def program(params: Any, key: Any, numbers: Any) -> Any:
        ends = [
            Wanted(number[None], cond, asked.guidance_scale, beside)
            for number, cond in zip(numbers, conds, strict=True)
        ]
        return between(job.generator, params, key, (ends[0], ends[1]), shares)

    key, rows = jax.random.key(asked.seed), max(1, min(asked.num_images, ROWS))
    numbers = asked.first_index + np.arange(2 * rows).reshape(rows, 2)
    found = [program(params, key, pair) for pair in numbers]
    if not is_main():
        return
    images = to_uint8(np.stack([np.asarray(row) for row in found]))
    made_by = {**job.made_by(step, asked.seed), "interpolate": list(asked.interpolate)}
    folder = job.workdir / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    words = [" → ".join(asked.interpolate)] * rows
    sheet = captioned(images.reshape(-1, *images.shape[2:]), words, asked.frames)
    save_png(folder / "interpolation.png", sheet, made_by)
    save_gif(folder / "interpolation.gif", images.swapaxes(0, 1), rows)
    print(f"{rows} ways of {asked.frames} pictures by step {step}: {folder / 'interpolation.png'}")


def chosen(config: Config) -> Callable[[Job, bool], None]:
    """What a config asks to be drawn: samples, or a picture varied or enlarged, or ways."""
    asked = config.sample
    ways = [
        ("sample.vary.image", asked.vary.image, vary),
        ("sample.interpolate", asked.interpolate, interpolate),
        ("sample.upscale.image", asked.upscale.image, upscale),
    ]
    found = [(key, draw) for key, value, draw in ways if value]
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(key for key, _ in found)} do not go together")
    return (lambda job, _: found[0][1](job)) if found else sample
