"""The denoising task: the objective of the Gaussian process and its network."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.codec import Codec
from diffusion_jax.codecs.latents import FromMoments
from diffusion_jax.data import Dataset
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.from_config import token_guidance
from diffusion_jax.from_config.choices import Config, ConfigError, keyed
from diffusion_jax.from_config.codecs import make_codec, training_codec
from diffusion_jax.from_config.guidance import check as check_guidance
from diffusion_jax.from_config.guidance import make_guidance
from diffusion_jax.from_config.images import check_images, make_image_condition
from diffusion_jax.from_config.network import applied, check_network, make_network, nothing
from diffusion_jax.from_config.process import make_error, make_process, make_times
from diffusion_jax.from_config.sampling import make_grid, make_sampler
from diffusion_jax.from_config.starts import make_start
from diffusion_jax.from_config.task import Task
from diffusion_jax.from_config.text import make_reader
from diffusion_jax.from_config.token_families import FAMILIES
from diffusion_jax.generation.generator import Generator
from diffusion_jax.models.uncertainty import Uncertainty
from diffusion_jax.objectives.augmentation import AUGMENT, TOLD, Augmentation, augmented
from diffusion_jax.objectives.gaussian import GaussianLoss
from diffusion_jax.objectives.parts import PLAIN, Conditioning
from diffusion_jax.types import Array, Key, Params


def gaussian(config: Config) -> Callable[[Dataset], Task]:
    """Checks the config without a data set, and returns the function that makes its task."""
    check_network(config)
    process, objective = make_process(config), config.objective
    schedule = process.schedule
    times, error = make_times(config, schedule), make_error(config, process)
    grid, sampler = make_grid(config, schedule), make_sampler(config, schedule)
    augment = make_augmentation(config)
    check_guidance(config)
    token_guidance.check_off(config)

    def make(dataset: Dataset) -> Task:
        kind = dataset.kind
        if kind.vocabulary:
            raise ConfigError(
                "objective.name='gaussian' adds noise to numbers, and these data are "
                f"{kind.words}: use {' or '.join(FAMILIES)}"
            )
        codec, frozen = make_codec(config, kind)
        trained = training_codec(config, codec)
        reader = make_reader(config, dataset)
        given = make_image_condition(config, schedule, dataset, codec)
        if augment:
            check_images("objective.augment.probability", str(augment.probability), kind)
            if isinstance(trained, FromMoments):
                raise ConfigError(
                    "objective.augment changes images, and codec.cache=True keeps the latents of "
                    "those that were not: set codec.cache=False"
                )
        channels = codec.shape[-1] * (2 if objective.learned_variance else 1)
        network = make_network(
            config, channels, dataset.num_classes, reader, given, (AUGMENT,) * bool(augment)
        )
        start = make_start(config, kind)
        t = jnp.zeros(1)
        told = {AUGMENT: np.zeros((1, TOLD), np.float32)} if augment else {}
        inputs = jnp.zeros((1, *codec.shape)), t, nothing(dataset, reader, given) | told
        model = applied(config, network, inputs)

        def init(key: Key) -> Params:
            params = model.init(key)
            if objective.learned_uncertainty:
                params = {**params, "uncertainty": Uncertainty().init(key, t)["params"]}
            if config.time_sampling.learned:
                params = {**params, "time_law": jnp.zeros(time_sampling.PARTS)}
            return params

        def loss(
            apply: Callable[..., Array], conditioning: Conditioning, codec: Codec = codec
        ) -> GaussianLoss:
            return GaussianLoss(
                *(apply, process, codec, times, error, conditioning),
                uncertainty=_uncertainty if objective.learned_uncertainty else None,
                vlb_steps=config.time_sampling.discrete.num_steps,
                vlb_weight=objective.vlb_weight,
            )

        guide = functools.partial(make_guidance, config, schedule, codec.limit)
        no_text: Any = reader.no_text if reader else None
        dropped = Conditioning(
            given.train, objective.cond_dropout, dict(objective.part_dropout), no_text
        )
        training = loss(model.train, dropped, trained)
        return Task(
            init,
            model,
            inputs,
            augmented(augment, training) if augment else training,
            loss(model.heldout, PLAIN),
            Generator(
                *(model, process, codec, sampler, grid, guide()), start=start, ready=model.ready
            ),
            guide=guide,
            noise=f"{config.schedule.name} schedule, {objective.prediction} prediction",
            quantile=times.quantile,
            reader=reader,
            condition=given.sample,
            frozen=frozen,
            cached=trained if isinstance(trained, FromMoments) else None,
        )

    return make


def make_augmentation(config: Config) -> Augmentation | None:
    """Random changes of training images, if there are any.

    Raises:
        ConfigError: a setting is not possible.
    """
    if (settings := config.objective.get("augment")) is None:  # older runs
        return None
    with keyed("objective.augment"):
        found = Augmentation(**settings)
    return found if found.probability else None


def _uncertainty(params: Params, t: Array) -> Array:
    u: Array = Uncertainty().apply({"params": params["uncertainty"]}, t)  # type: ignore[assignment]
    return u
