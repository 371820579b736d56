"""The network of a config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import Config, ConfigError, check_known
from diffusion_jax.from_config.images import NOTHING, ImageCondition
from diffusion_jax.from_config.text import make_text_tower
from diffusion_jax.from_config.token_families import FAMILIES
from diffusion_jax.models.applied import Applied
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.gains import Gains
from diffusion_jax.models.mlp import MLP
from diffusion_jax.models.reading import Reading
from diffusion_jax.models.remat import REMAT
from diffusion_jax.models.unet import UNet
from diffusion_jax.system.keys import DROPOUT_GENERATORS
from diffusion_jax.text import Reader

MODELS: dict[str, Callable[..., nn.Module]] = {"unet": UNet, "dit": DiT, "mlp": MLP}
NETWORKS = {
    "gaussian": tuple(MODELS),
    "contrastive": ("dual_encoder",),
    "damage": ("unet",),
    "autoencoder": ("autoencoder",),
    "classified": ("dit",),
    **dict.fromkeys(FAMILIES, ("dit",)),
}
"""Networks allowed for each objective."""
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_network(config: Config) -> None:
    """Raises a ConfigError if the network is unknown or does not fit the objective."""
    name, objective = config.model.name, config.objective.name
    check_known(name, [one for names in NETWORKS.values() for one in names], "model.name")
    check_known(config.model.dtype, DTYPES, "model.dtype")
    if name not in NETWORKS[objective]:
        raise ConfigError(
            f"objective.name={objective!r} does not support model.name={name!r}: allowed is "
            f"{' or '.join(map(repr, NETWORKS[objective]))}"
        )
    with_gains = config.model.get("gains", False)  # older runs have no choice
    if with_gains and (objective != "gaussian" or config.objective.learned_variance):
        raise ConfigError(
            "model.gains=True is for objective.name='gaussian' without objective.learned_variance"
        )
    if "remat" in config.model[name]:
        check_known(config.model[name].remat, REMAT, f"model.{name}.remat")


def make_network(
    config: Config,
    out_channels: int,
    num_classes: int = 0,
    reader: Reader | None = None,
    given: ImageCondition = NOTHING,
    vectors: tuple[str, ...] = (),
    **more: Any,
) -> nn.Module:
    """A network from arrays to arrays, including a trained text encoder.

    `vectors` are names of further vectors that it takes; `more` are arguments of its own that no
    setting has.
    """
    name, pooled = config.model.name, bool(reader) and config.text.pooled
    make, tower = MODELS[name], make_text_tower(config) if reader else None
    texts = tower or (reader and reader.encoder)
    gains, image = config.model.get("gains", False), "image" in given.beside
    inputs = {
        "context_dim": texts.width if texts else 0,
        "num_classes": num_classes,
        "vectors": ("pooled",) * pooled + ("level",) * ("level" in given.none) + vectors,
        **{f"{key}_channels": given.none[key].shape[-1] for key in given.beside},
    }
    if gains and image:
        inputs["image_channels"] *= 2
    known = {field.name for field in dataclasses.fields(make)}  # type: ignore[arg-type]
    for key, value in inputs.items():
        if value and key not in known:
            raise ConfigError(f"model.name={name!r} does not support {key}, which is needed")
    network = make(
        **config.model[name],
        **{key: value for key, value in inputs.items() if key in known},
        **more,
        out_channels=out_channels * (2 + image if gains else 1),
        dtype=DTYPES[config.model.dtype],
    )
    network = Gains(network, image) if gains else network
    return Reading(tower, network) if tower else network


def applied(config: Config, network: nn.Module, inputs: tuple[Any, ...]) -> Applied:
    """The network as a function of its parameters, with dropout by the generator of the config."""
    name = config.model.get("dropout_bits", "threefry")  # older runs have no choice
    check_known(name, DROPOUT_GENERATORS, "model.dropout_bits")
    return Applied(network, inputs, DROPOUT_GENERATORS[name])


def nothing(
    dataset: Dataset, reader: Reader | None, given: ImageCondition = NOTHING
) -> dict[str, np.ndarray]:
    """Switched-off conditioning of one item, arrays `[1, ...]`, with all inputs of the network."""
    label = {"label": np.full(1, -1, np.int32)} if dataset.num_classes else {}
    return {**label, **(reader.none if reader else {}), **given.none}
