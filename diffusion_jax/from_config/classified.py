"""The task of a classifier of noisy tokens."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.diffusion.tokens import Masked, Replaced
from diffusion_jax.from_config.choices import Config, ConfigError, choose, need_none
from diffusion_jax.from_config.network import applied, check_network, make_network, nothing
from diffusion_jax.from_config.task import Classifier, Task
from diffusion_jax.from_config.tokens import SCHEDULES
from diffusion_jax.models.tokens import TokenClassifier
from diffusion_jax.objectives.classified import ClassLoss
from diffusion_jax.types import Array, Key, Params


def classified(config: Config) -> Callable[[Dataset], Task]:
    """Checks the config without a data set, and returns the function that makes its task."""
    check_network(config)
    need_none(config, "text", "image_condition")
    schedule = choose(config.token_schedule, "token_schedule", SCHEDULES)
    replaced = config.objective.classified.replaced

    def make(dataset: Dataset) -> Task:
        kind, classes = dataset.kind, dataset.num_classes
        if not kind.vocabulary or classes < 2:
            raise ConfigError(
                "objective.name='classified' needs texts or other tokens of two or more classes, "
                f"and these data are {kind.words} of {classes or 'no'} classes"
            )
        process = (Replaced if replaced else Masked)(schedule, kind.vocabulary)
        network = TokenClassifier(make_network(config, classes), timed=replaced)
        signal = jax.nn.one_hot(jnp.zeros((1, *kind.shape), int), kind.vocabulary + 1)
        inputs = signal, jnp.zeros(1), nothing(dataset, None)
        model = applied(config, network, inputs)

        def logits(params: Params, signal: Array, t: Array) -> Array:
            return model(params, signal, t, {})

        def train(params: Params, signal: Array, t: Array, key: Key) -> Array:
            return model.train(params, signal, t, {}, key)

        def heldout(params: Params, signal: Array, t: Array, key: Key) -> Array:
            return logits(params, signal, t)

        size = config.train.batch_size
        return Task(
            model.init,
            model,
            model.inputs,
            ClassLoss(train, process, size),
            ClassLoss(heldout, process, size),
            draws_nothing=(
                "objective.name='classified' trains a network that tells the classes of texts and "
                "draws none: use --mode train, evaluate or plan"
            ),
            classifier=Classifier(logits, process),
            noise=f"{'uniform noise' if replaced else 'masks'}, {config.token_schedule.name} "
            "schedule",
        )

    return make
