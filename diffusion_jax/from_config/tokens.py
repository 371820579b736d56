"""The tasks of tokens: unmasking, uniform noise, and autoregression with the same network."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import Dataset
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.diffusion import time_grids, tokens
from diffusion_jax.from_config import token_guidance
from diffusion_jax.from_config.choices import (
    Config,
    ConfigError,
    choose,
    keyed,
    lookup,
    named,
    need_none,
)
from diffusion_jax.from_config.guidance import check as check_guidance
from diffusion_jax.from_config.guidance import make_guidance
from diffusion_jax.from_config.network import applied, check_network, make_network, nothing
from diffusion_jax.from_config.task import Classifier, Task
from diffusion_jax.from_config.token_families import FAMILIES
from diffusion_jax.generation.generator import Generator, Guidance
from diffusion_jax.generation.starts import NORMAL, Start, known
from diffusion_jax.objectives.parts import PLAIN, Conditioning
from diffusion_jax.objectives.token_losses import TokenLoss
from diffusion_jax.types import Array

SCHEDULES: dict[str, Callable[..., tokens.TokenSchedule]] = {
    "polynomial": tokens.Polynomial,
    "cosine": tokens.Cosine,
}
"""By `token_schedule.name`."""
GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": time_grids.uniform,
    "quadratic": time_grids.quadratic,
    "held": time_grids.held,
}
"""Those of `sample.grid` that are defined by the times alone."""


OFF = {
    "clip": (-1.0, 0.0),
    "t_max": (1.0,),
    "restart.repeats": (0,),
    "guidance.parallel": (1.0,),
    "guidance.max_norm": (0.0,),
    "guidance.rescale": (0.0,),
    "guidance.flock.size": (0,),
    "guidance.likeness.judge": ("",),
    "vary.image": ("",),
    "upscale.image": ("",),
    "interpolate": ((),),
}
"""Settings of `sample` that tokens have not, and values that mean so."""


def token_task(config: Config) -> Callable[[Dataset], Task]:
    """Checks the config without a data set, and returns the function that makes its task."""
    check_network(config)
    name, objective, sample = config.objective.name, config.objective, config.sample
    family = FAMILIES[name]
    _check_off(config)
    schedule = choose(config.token_schedule, "token_schedule", SCHEDULES)
    make_sampler = lookup(family.samplers, sample.sampler, "sample.sampler")
    make_times = lookup(GRIDS, sample.grid, "sample.grid")
    with keyed(f"sample.{sample.grid}", steps="sample.steps"):
        times = make_times(sample.steps, **sample.get(sample.grid, {}))
    check_guidance(config)
    token_guidance.check(config)
    family.bound(config, family.process(config, schedule, 2))  # raises early
    _check_cache(config)

    def make(dataset: Dataset) -> Task:
        kind = dataset.kind
        if not isinstance(kind, Tokens):
            raise ConfigError(
                f"objective.name={name!r} goes with texts and other tokens, and these data are "
                f"{kind.words}"
            )
        length, vocabulary = kind.shape[0], kind.vocabulary
        if family.ordered and sample.steps != length:
            raise ConfigError(
                f"sample.steps={sample.steps} must be {length}, the number of tokens, as "
                f"objective.name={name!r} draws them one by one"
            )
        process = family.process(config, schedule, vocabulary)
        with keyed(f"sample.{sample.sampler}"):
            sampler = make_sampler(process, **sample.get(sample.sampler, {}))
        tilts = token_guidance.make_tilts(config, dataset)
        mask = family.mask(config)
        net = make_network(config, vocabulary, dataset.num_classes, mask=mask)
        inputs = jnp.zeros((1, length), jnp.int32), jnp.zeros(1), nothing(dataset, None)
        network = family.network(config, net, vocabulary)
        model = applied(config, network, inputs)
        course = family.course(config, process, network, length, sampler, times)
        bound = family.bound(config, process)

        def loss(apply: Callable[..., Array], conditioning: Conditioning) -> TokenLoss:
            return TokenLoss(apply, bound, config.train.batch_size, conditioning)

        def guide(classify: Classifier | None = None, **models: Any) -> Guidance:
            guidance = make_guidance(config, schedule, None, **models)
            particles = token_guidance.settings_of(config, "particles")
            return token_guidance.with_tilts(guidance, process, tilts(classify), particles)

        dropout = objective.cond_dropout, dict(objective.part_dropout)
        return Task(
            model.init,
            model,
            inputs,
            loss(model.train, Conditioning(None, *dropout)),
            loss(model.heldout, PLAIN),
            Generator(
                *(model, process, Identity(kind.shape)),
                guidance=guide(),
                start=_start(sample.start, name, kind),
                ready=model.ready,
                **course._asdict(),
            ),
            guide=guide,
            noise=f"{name}, {config.token_schedule.name} schedule",
            learned=lambda params: family.learned(params, kind.pieces),
        )

    return make


def _start(text: str, objective: str, kind: Tokens) -> Start:
    """The masks that `sample.start` leaves in a text."""
    if text == "normal":
        return NORMAL
    what = f"sample.start={text!r}"
    if not FAMILIES[objective].fills_in:
        raise ConfigError(
            f"{what} must be 'normal': texts are filled in with objective.name='masked', or "
            "continued with 'autoregressive'"
        )
    with named(what):
        x_T = kind.read(text)
    masked = x_T == kind.vocabulary
    if objective == "autoregressive" and np.any(np.diff(masked.astype(int)) < 0):
        raise ConfigError(
            f"{what} must be the beginning of a text, without gaps: objective.name="
            "'autoregressive' sees nothing to the right"
        )
    return known(jnp.asarray(x_T), text)


def _check_off(config: Config) -> None:
    """Raises a ConfigError for settings that mean nothing for tokens."""
    name = config.objective.name
    for key, allowed in OFF.items():
        value: Any = config.sample
        for part in key.split("."):
            value = value[part]
        value = tuple(value) if isinstance(value, list) else value
        if value not in allowed:
            raise ConfigError(
                f"sample.{key}={value!r} means nothing for tokens (objective.name={name!r}): "
                f"leave it at {allowed[0]!r}"
            )
    need_none(config, "text", "image_condition")
    if config.sample.guidance.schedule == "plus_plus":
        raise ConfigError(
            f"sample.guidance.schedule='plus_plus' is for DDIM, not objective.name={name!r}"
        )


def _check_cache(config: Config) -> None:
    """Raises a ConfigError for a cache of predictions that change although no token does."""
    if config.sample.sampler != "unmasking" or not config.sample.unmasking.cached:
        return
    size = token_guidance.settings_of(config, "particles").get("size")
    changing = {
        FAMILIES[config.objective.name].timed(config): "a network that is told the time predicts "
        "something else at each step",
        f"sample.particles.size={size}" if size else "": "texts are resampled",
        token_guidance.in_time(config): "guidance changes although no token does",
    }
    for setting, why in changing.items():
        if setting:
            raise ConfigError(f"sample.unmasking.cached=True must be False with {setting}: {why}")
