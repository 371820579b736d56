"""The network of a config."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import ConfigError, check_known
from diffusion_jax.from_config.images import ImageCondition
from diffusion_jax.from_config.text import make_text_tower
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.dual_encoder import DualEncoder
from diffusion_jax.models.reading import Reading
from diffusion_jax.models.remat import REMAT
from diffusion_jax.models.unet import UNet
from diffusion_jax.text import Reader

MODELS: dict[str, Callable[..., nn.Module]] = {"unet": UNet, "dit": DiT}
DUAL = "dual_encoder"
"""The network of the contrastive objective, and of no other."""
CONTRASTIVE = "contrastive"
OBJECTIVES = ("gaussian", CONTRASTIVE)
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_network(config: ConfigDict) -> None:
    """Raises a ConfigError if there is no such network, or not for the objective."""
    name, objective = config.model.name, config.objective.name
    check_known(objective, OBJECTIVES, "objective.name")
    check_known(name, (*MODELS, DUAL), "model.name")
    check_known(config.model.dtype, DTYPES, "model.dtype")
    if (name == DUAL) != (objective == CONTRASTIVE):
        raise ConfigError(
            f"objective.name={objective!r} and model.name={name!r} do not go together: "
            f"{DUAL!r} is for {CONTRASTIVE!r}, and nothing else is"
        )
    if name == DUAL:
        if config.text.name == "none":
            raise ConfigError(f"model.name={DUAL!r} reads texts: text.name is 'none'")
        if config.image_condition.name != "none":
            raise ConfigError(
                f"image_condition.name={config.image_condition.name!r} is of no use to "
                f"model.name={DUAL!r}"
            )
        return
    check_known(config.model[name].remat, REMAT, f"model.{name}.remat")


def make_network(
    config: ConfigDict, dataset: Dataset, reader: Reader | None, given: ImageCondition
) -> nn.Module:
    """The network for images of a data set, with what reads texts for it."""
    tower = make_text_tower(config) if reader else None
    if config.model.name == DUAL:
        network: nn.Module = DualEncoder(**config.model[DUAL], dtype=DTYPES[config.model.dtype])
        return Reading(tower, network) if tower else network
    channels = dataset.image_shape[-1] * (2 if config.objective.learned_variance else 1)
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
