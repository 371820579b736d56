"""What is written for other programs: a folder as diffusers reads it."""

from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.codecs.latents import CODEC, Latents
from diffusion_jax.diffusion import scheduler_configs
from diffusion_jax.from_config.choices import Config, ConfigError, keyed
from diffusion_jax.from_config.network import make_network
from diffusion_jax.from_config.process import make_schedule
from diffusion_jax.from_config.task import Task
from diffusion_jax.from_config.text import tokeniser_file
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.published import autoencoder_configs
from diffusion_jax.models.published.folder import (
    Written,
    text_config,
    unet_config,
    write_folder,
)
from diffusion_jax.types import Params

NEEDED = {
    "objective.name": "gaussian",
    "model.name": "unet",
    "model.time_input": "table_index",
    "codec.name": "autoencoder",
    "text.name": "clip",
}
"""Settings of networks that Stable Diffusion's folders can hold."""


def check_export(config: Config) -> None:
    """Raises a ConfigError if no folder of Stable Diffusion can hold the network."""
    found = config.to_dict()
    for key, needed in NEEDED.items():
        group, _, name = key.partition(".")
        if (value := found.get(group, {}).get(name)) != needed:
            raise ConfigError(
                f"--mode export writes Stable Diffusion's networks, of {key}={needed!r}: it is "
                f"{value!r}"
            )
    if config.weights.embeddings:
        raise ConfigError(
            f"weights.embeddings={config.weights.embeddings} must be () for --mode export: their "
            "words are not part of a published tokeniser, and diffusers loads their files"
        )


def write_published(
    folder: Path, config: Config, task: Task, params: Params, frozen: dict[str, Params]
) -> None:
    """Writes the folder of a network with `params`, with the frozen parts beside it.

    Raises:
        ConfigError: a setting has no counterpart there.
        WeightsError: the network has a part that has none.
    """
    check_export(config)
    assert task.reader
    assert task.reader.encoder
    assert task.generator
    encoder, scheduler = task.reader.encoder, scheduler_config(config)
    codec: Any = task.generator.codec
    height, _, channels = codec.shape
    outputs = channels * (2 if config.objective.learned_variance else 1)
    net: Any = make_network(config, outputs, 0, task.reader)
    start, end = encoder.tokens([""]).ids[0][:2].tolist()
    tower = TextTower(**config.text.clip, vocabulary=encoder.tokeniser.vocabulary, end=end)
    with keyed("model.unet"):
        unet = unet_config(net, channels, height)
    with keyed("codec.autoencoder"):
        vae = _autoencoder_config(codec, height * codec.network.factor)
    write_folder(
        folder,
        {
            "unet": Written(unet, {"params": params}),
            "vae": Written(vae, {"params": frozen[CODEC]}),
            "text_encoder": Written(text_config(tower, start), encoder.variables),
        },
        scheduler,
        tokeniser_file(config),
        encoder.length,
    )


def _autoencoder_config(codec: Latents, side: int) -> dict[str, Any]:
    """`vae/config.json`, with one factor of all latents, or with their mean and deviation."""
    network, scale = codec.network, codec.scale
    if isinstance(scale, float) and not codec.mean:
        return autoencoder_configs.write(network, None, None, side, scale)
    mean, scales = np.broadcast_arrays(codec.mean, scale)
    return autoencoder_configs.write(network, mean.tolist(), (1 / scales).tolist(), side)


def scheduler_config(config: Config) -> dict[str, Any]:
    """`scheduler_config.json` of the configured sampling.

    Raises:
        ConfigError: diffusers has no such scheduler.
    """
    sample = config.sample
    grid, solver = sample.get(sample.grid, {}), sample.get(sample.sampler, {})
    solver = {key: value for key, value in solver.items() if key != "eta" or value}  # DDIM's is 0
    asked = scheduler_configs.SchedulerConfig(
        make_schedule(config),
        config.objective.prediction,
        *(sample.sampler, solver, sample.grid, dict(grid), sample.start),
        clip=max(sample.clip, 0.0),  # latents have no range
    )
    try:
        return scheduler_configs.write(asked)
    except ValueError as error:
        raise ConfigError(f"--mode export: sample.sampler={sample.sampler!r}: {error}") from error
