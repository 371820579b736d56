"""The task of CLIP: a dual encoder of pictures and texts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import ConfigError
from diffusion_jax.from_config.network import DTYPES, check_network, with_tower
from diffusion_jax.from_config.task import Task
from diffusion_jax.from_config.text import make_reader
from diffusion_jax.models.dual_encoder import DualEncoder
from diffusion_jax.objectives.contrastive import ContrastiveLoss
from diffusion_jax.types import Key, Params


def contrastive(config: ConfigDict) -> Callable[[Dataset], Task]:
    """The task for a data set, with all that can be checked without one checked.

    Raises:
        ConfigError: a setting is not possible.
    """
    check_network(config)
    settings, shift = config.model.dual_encoder, config.objective.contrastive.max_shift
    if config.text.name == "none":
        raise ConfigError("model.name='dual_encoder' reads texts: text.name is 'none'")
    if config.image_condition.name != "none":
        raise ConfigError(
            f"image_condition.name={config.image_condition.name!r} is of no use to "
            "model.name='dual_encoder'"
        )
    if shift < 0:
        raise ConfigError(f"objective.contrastive.max_shift={shift} must be 0 or more pixels")

    def make(dataset: Dataset) -> Task:
        reader = make_reader(config, dataset)
        assert reader is not None  # text.name is not 'none'
        network = DualEncoder(**settings, dtype=DTYPES[config.model.dtype])
        model = with_tower(config, network, reader)
        cond: dict[str, np.ndarray] = dict(reader.none)
        if dataset.num_classes:
            cond = {"label": np.full(1, -1, np.int32), **cond}
        x = jnp.zeros((1, *dataset.kind.shape))

        def apply(params: Params, *inputs: Any) -> Any:
            return model.apply({"params": params}, *inputs)

        def apply_train(params: Params, *inputs: Any) -> Any:
            *first, key = inputs
            return model.apply({"params": params}, *first, train=True, rngs={"dropout": key})

        def init(key: Key) -> Params:
            return model.init(key, x, jax.tree.map(jnp.asarray, cond))["params"]

        return Task(
            init,
            apply,
            (x, cond),
            ContrastiveLoss(apply_train, shift),
            ContrastiveLoss(lambda params, *inputs: apply(params, *inputs[:-1])),
            draws_nothing=(
                "objective.name='contrastive' trains a network that compares pictures with texts "
                "and draws none: it has --mode train, evaluate and plan"
            ),
            metrics=("names",),
            likeness=apply,
            reader=reader,
        )

    return make
