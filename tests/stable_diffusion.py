"""A small Stable Diffusion with random weights, as a folder of diffusers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import sd15
from diffusion_jax.diffusion import scheduler_configs
from diffusion_jax.diffusion.schedules import ScaledLinear
from diffusion_jax.from_config import Config, build
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.published.files import write_part
from tests.texts import VOCABULARY, write_tokeniser

SMALL = {
    "data.shape": (16, 24, 3),
    "model.unet.channels": 32,
    "model.unet.channel_mults": (1,),
    "model.unet.num_blocks": 1,
    "model.unet.attention_levels": (0,),
    "codec.autoencoder.channels": 8,
    "codec.autoencoder.channel_mults": (1, 1),
    "codec.autoencoder.num_blocks": 1,
    "text.clip.width": 16,
    "text.clip.depth": 1,
    "text.clip.heads": 2,
    "sample.steps": 3,
    "sample.num_images": 2,
    "sample.prompts": ("a house",),
}
GRID = {"num_steps": 1000, "offset": 1, "end": 0.001, "skip": 0}
SCHEDULER = scheduler_configs.SchedulerConfig(ScaledLinear(), "eps", "pndm", {}, "leading", GRID)


def settings(source: Path, **changes: Any) -> Config:
    config = sd15.get_config()
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict({**SMALL, "weights.source": str(source), **changes})
    return config


def variables(source: Path) -> dict[str, Any]:
    """Random variables of all parts."""
    config = settings(source, text__name="none", text__unconditional="zeros", sample__prompts=())
    config.model.unet.norm_groups = 0
    key = jax.random.key(0)
    tower = TextTower(VOCABULARY, width=16, depth=1, heads=2)
    task = build(config).task
    net = task.generator.apply._network.clone(context_dim=16)
    x, t, _ = task.inputs
    text = {"text": np.ones((1, 77, 16), np.float32)}
    coder = task.generator.codec.network
    made = {
        "unet": jax.eval_shape(net.init, key, x, t, text),
        "vae": jax.eval_shape(coder.init, key, np.zeros((1, 16, 24, 3), np.float32)),
        "text_encoder": jax.eval_shape(tower.init, key, np.zeros((1, 77), np.int32)),
    }
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: 0.1 * rng.standard_normal(a.shape, np.float32), made)


def livelier(params: Any) -> Any:
    """The random parameters as those of a network in which all layers have something to say."""

    def one(path: tuple[str, ...], value: Any) -> Any:
        if path[-1] == "kernel":
            return 10 * value / np.sqrt(np.prod(value.shape[:-1]))
        return {"scale": 1 + value, "embedding": 10 * value}.get(path[-1], value)

    return unflatten_dict({path: one(path, v) for path, v in flatten_dict(params).items()})


def write_small(source: Path, changed: Callable[[Any], Any] = lambda values: values) -> Path:
    """Writes the folder, of changed random parameters, and returns it."""
    for part, values in variables(source).items():
        write_part(source, part, changed(values))
    (source / "tokenizer").mkdir()
    write_tokeniser(source / "tokenizer")
    (source / "scheduler").mkdir()
    written = scheduler_configs.write(SCHEDULER)
    (source / "scheduler/scheduler_config.json").write_text(json.dumps(written))
    return source
