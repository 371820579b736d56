"""The stage that interpolates between two texts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.from_config import ConfigError
from diffusion_jax.generation.variations import between
from diffusion_jax.run.trained import Run
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.pictures import save_gif, save_png
from diffusion_jax.system.progress import tracked

ROWS = 4
"""Rows of an interpolation at most, each with its own noise."""


def interpolate(run: Run) -> None:
    """Makes rows of samples from one text to another: `interpolation.png` and `.gif`."""
    asked, kind = run.config.sample, run.parts.dataset.kind
    reader = run.parts.task.reader
    if reader is None or reader.encoder is None:
        raise ConfigError(
            "sample.interpolate mixes embedded texts, and needs a network with a frozen text "
            f"encoder: text.name is {run.config.text.name!r}"
        )
    if run.judge:
        raise ConfigError("sample.interpolate and sample.guidance.likeness do not go together")
    model = run.trained()
    generator = model.draws
    shares = jnp.linspace(0, 1, asked.frames)
    conds = [run.conditions.read([text]) for text in asked.interpolate]
    whole = model.request(np.arange(asked.frames), {})

    @jax.jit
    def program(params: Any, key: Any, numbers: Any) -> Any:
        ends = [
            whole._replace(index=number[None], cond=cond)
            for number, cond in zip(numbers, conds, strict=True)
        ]
        x_0 = between(generator, params, key, (ends[0], ends[1]), shares)
        return generator.codec.decode(whole.frozen, x_0)

    key, rows = make_key(asked.seed), max(1, min(asked.num_images, ROWS))
    numbers = asked.first_index + np.arange(2 * rows).reshape(rows, 2)
    pairs = tracked(numbers, "sampling", rows)
    found = np.concatenate([np.asarray(program(model.params, key, pair)) for pair in pairs])
    items = model.encoded(found, np.repeat(numbers[:, 0], asked.frames))
    items = items.reshape(rows, asked.frames, *kind.shape)
    if not is_main():
        return
    made_by = {**model.made_by(asked.seed), "interpolate": list(asked.interpolate)}
    folder = run.workdir / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    words = [" → ".join(asked.interpolate)] * rows
    sheet = kind.sheet(items.reshape(-1, *items.shape[2:]), asked.frames, words)
    save_png(folder / "interpolation.png", sheet, made_by)
    frames = [kind.sheet(frame, rows) for frame in items.swapaxes(0, 1)]
    save_gif(folder / "interpolation.gif", frames)
    path = folder / "interpolation.png"
    print(f"{rows} ways of {asked.frames} pictures by step {model.step}: {path}")
