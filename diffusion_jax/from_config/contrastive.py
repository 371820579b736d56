"""The task of CLIP: a dual encoder of pictures and texts."""

from collections.abc import Callable

import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.from_config.network import DTYPES, check_network, nothing
from diffusion_jax.from_config.task import Task
from diffusion_jax.from_config.text import make_reader, make_text_tower
from diffusion_jax.models.applied import Applied
from diffusion_jax.models.dual_encoder import DualEncoder
from diffusion_jax.models.reading import Reading
from diffusion_jax.objectives.contrastive import ContrastiveLoss


def contrastive(config: Config) -> Callable[[Dataset], Task]:
    """The task for a data set, with all that can be checked without one checked."""
    check_network(config)
    settings, shift = config.model.dual_encoder, config.objective.contrastive.max_shift
    if config.text.name == "none":
        raise ConfigError("model.name='dual_encoder' reads texts: text.name is 'none'")
    if config.image_condition.name != "none":
        raise ConfigError(
            f"image_condition.name={config.image_condition.name!r} is of no use to "
            "model.name='dual_encoder'"
        )

    def make(dataset: Dataset) -> Task:
        reader, tower = make_reader(config, dataset), make_text_tower(config)
        network = DualEncoder(**settings, dtype=DTYPES[config.model.dtype])
        x = jnp.zeros((1, *dataset.kind.shape))
        model = Applied(
            Reading(tower, network) if tower else network, (x, nothing(dataset, reader))
        )
        return Task(
            model.init,
            model,
            model.inputs,
            ContrastiveLoss(model.train, shift),
            ContrastiveLoss(model.heldout),
            draws_nothing=(
                "objective.name='contrastive' trains a network that compares pictures with texts "
                "and draws none: it has --mode train, evaluate and plan"
            ),
            likeness=model,
            reader=reader,
        )

    return make
