"""The task of finding damage: which pixels of a decayed photograph are destroyed."""

from collections.abc import Callable

import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import Config, ConfigError, keyed, need_none
from diffusion_jax.from_config.network import applied, check_network, make_network
from diffusion_jax.from_config.task import Task
from diffusion_jax.objectives.segmentation import SegmentationLoss
from diffusion_jax.restoration.decay import RandomDecay
from diffusion_jax.types import Array, Key, Params


def make_decay(config: Config) -> RandomDecay:
    """The decay of photographs in training."""
    with keyed("objective.damage"):
        return RandomDecay(**config.objective.damage)


def damage(config: Config) -> Callable[[Dataset], Task]:
    """Checks the config without a data set, and returns the function that makes its task."""
    check_network(config)
    decay = make_decay(config)
    need_none(config, "text", "image_condition")

    def make(dataset: Dataset) -> Task:
        kind = dataset.kind
        if len(kind.shape) != 3:
            raise ConfigError(
                f"objective.name='damage' goes with images, and these data are {kind.words}"
            )
        network = make_network(config, out_channels=1)
        model = applied(config, network, (jnp.zeros((1, *kind.shape)), jnp.zeros(1), {}))

        def odds(params: Params, x: Array) -> Array:
            return model(params, x, jnp.zeros(len(x)), {})  # a network of noisy images at t = 0

        def train(params: Params, x: Array, key: Key) -> Array:
            return model.train(params, x, jnp.zeros(len(x)), {}, key)

        def heldout(params: Params, x: Array, key: Key) -> Array:
            return odds(params, x)

        return Task(
            model.init,
            model,
            model.inputs,
            SegmentationLoss(train, decay),
            SegmentationLoss(heldout, decay),
            draws_nothing=(
                "objective.name='damage' trains a network that finds destroyed pixels and draws "
                "none: use --mode train, evaluate or plan"
            ),
            damage=odds,
        )

    return make
