"""The contrastive task (CLIP): a dual encoder of images and texts."""

from collections.abc import Callable

import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.from_config.network import DTYPES, applied, check_network, nothing
from diffusion_jax.from_config.task import Task
from diffusion_jax.from_config.text import make_reader, make_text_tower
from diffusion_jax.models.dual_encoder import DualEncoder
from diffusion_jax.models.reading import Reading
from diffusion_jax.objectives.contrastive import ContrastiveLoss


def contrastive(config: Config) -> Callable[[Dataset], Task]:
    """Checks the config without a data set, and returns the function that makes its task."""
    check_network(config)
    settings, shift = config.model.dual_encoder, config.objective.contrastive.max_shift
    if config.text.name == "none":
        raise ConfigError("model.name='dual_encoder' needs texts, but text.name is 'none'")
    if config.image_condition.name != "none":
        raise ConfigError(
            f"image_condition.name={config.image_condition.name!r} has no effect with "
            "model.name='dual_encoder': set it to 'none'"
        )

    def make(dataset: Dataset) -> Task:
        reader, tower = make_reader(config, dataset), make_text_tower(config)
        network = DualEncoder(**settings, dtype=DTYPES[config.model.dtype])
        x = jnp.zeros((1, *dataset.kind.shape))
        model = applied(
            config, Reading(tower, network) if tower else network, (x, nothing(dataset, reader))
        )
        return Task(
            model.init,
            model,
            model.inputs,
            ContrastiveLoss(model.train, shift),
            ContrastiveLoss(model.heldout),
            draws_nothing=(
                "objective.name='contrastive' trains a network that compares images with texts "
                "and draws none: use --mode train, evaluate or plan"
            ),
            likeness=model,
            reader=reader,
        )

    return make
