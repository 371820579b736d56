"""The network of a config."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.build.choices import check_known
from diffusion_jax.build.images import ImageCondition
from diffusion_jax.build.text import make_text_tower
from diffusion_jax.data import Dataset
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.reading import Reading
from diffusion_jax.models.remat import REMAT
from diffusion_jax.models.unet import UNet
from diffusion_jax.text import Reader

MODELS: dict[str, Callable[..., nn.Module]] = {"unet": UNet, "dit": DiT}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_network(config: ConfigDict) -> None:
    """Raises a ConfigError if there is no such network."""
    name = config.model.name
    check_known(name, MODELS, "model.name")
    check_known(config.model.dtype, DTYPES, "model.dtype")
    check_known(config.model[name].remat, REMAT, f"model.{name}.remat")


def make_network(
    config: ConfigDict, dataset: Dataset, reader: Reader | None, given: ImageCondition
) -> nn.Module:
    """The network for images of a data set, with what reads texts for it."""
    channels = dataset.image_shape[-1] * (2 if config.objective.learned_variance else 1)
    tower = make_text_tower(config) if reader else None
    width = reader.encoder.width if reader and reader.encoder else tower.width if tower else 0
    network = MODELS[config.model.name](
        **config.model[config.model.name],
        context_dim=width,
        num_classes=dataset.num_classes,
        vectors=("pooled",) * bool(reader) + ("level",) * ("level" in given.none),
        image_channels=given.none["image"].shape[-1] if given.train else 0,
        out_channels=channels,
        dtype=DTYPES[config.model.dtype],
    )
    return Reading(tower, network) if tower else network
