"""The tasks of tokens: unmasking, uniform noise, and autoregression with the same network."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import DataError, Dataset, Kind
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.diffusion import time_grids, tokens
from diffusion_jax.diffusion.process import Process
from diffusion_jax.evaluation.token_bits import Likelihood, spread
from diffusion_jax.from_config.choices import Config, ConfigError, choose, keyed, lookup
from diffusion_jax.from_config.guidance import check as check_guidance
from diffusion_jax.from_config.guidance import make_guidance
from diffusion_jax.from_config.network import check_network, make_network, nothing
from diffusion_jax.from_config.task import Task
from diffusion_jax.generation.generator import Generator
from diffusion_jax.generation.starts import NORMAL, Start, known
from diffusion_jax.models.applied import Applied
from diffusion_jax.models.attention import block_mask, causal
from diffusion_jax.models.blocks import BlockNetwork
from diffusion_jax.models.dit import Mask
from diffusion_jax.models.tokens import TokenNetwork
from diffusion_jax.objectives import tokens as bounds
from diffusion_jax.objectives.parts import PLAIN, Conditioning
from diffusion_jax.objectives.token_losses import Bound, TokenLoss, autoregressive
from diffusion_jax.samplers import unmasking
from diffusion_jax.samplers.blocks import block_times, in_blocks
from diffusion_jax.samplers.replacement import replacement
from diffusion_jax.types import Array, Cond, Denoiser, Sampler

SCHEDULES: dict[str, Callable[..., tokens.TokenSchedule]] = {
    "polynomial": tokens.Polynomial,
    "cosine": tokens.Cosine,
}
"""By `token_schedule.name`."""
ESTIMATORS: dict[str, Callable[..., bounds.Estimator]] = {
    "in_time": lambda steps: bounds.in_time,
    "by_count": lambda steps: bounds.by_count,
    "in_steps": bounds.in_steps,
}
"""By `objective.masked.estimator`."""
GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": time_grids.uniform,
    "quadratic": time_grids.quadratic,
    "held": time_grids.held,
}
"""Those of `sample.grid` that are defined by the times alone."""


class Family(NamedTuple):
    """What an objective of tokens is made of; all functions take the config first."""

    process: Callable[[Config, tokens.TokenSchedule, int], Any]  # of a schedule and V
    bound: Callable[[Config, Any], Bound]  # of a process
    samplers: dict[str, Callable[..., Sampler]]  # `(process, **settings)`, by `sample.sampler`
    network: Callable[[Config, Any, int], nn.Module]  # of a transformer and V
    mask: Callable[[Config], Mask | None] = lambda config: None  # of that transformer
    # `(config, process, evaluations of a text) -> estimates` other than the bounds by the number of
    # masks, by name
    likelihoods: Callable[[Config, Any, int], dict[str, Likelihood]] = lambda *_: {}
    # `(config, process, sampler, times, L) -> (sampler, times)` of a whole text
    course: Callable[..., tuple[Sampler, Array]] = lambda config, process, *of: of[:2]
    ordered: bool = False  # whether tokens are predicted from those to the left alone


def _estimator(settings: Config, key: str) -> bounds.Estimator:
    make = lookup(ESTIMATORS, settings.estimator, f"{key}.estimator")
    with keyed(key, num_steps=f"{key}.steps"):
        return make(settings.steps)


def _masked(config: Config, schedule: tokens.TokenSchedule, vocabulary: int) -> tokens.Masked:
    return tokens.Masked(schedule, vocabulary)


def _masked_bound(config: Config, process: tokens.Masked) -> Bound:
    estimator = _estimator(config.objective.masked, "objective.masked")
    return _of_denoiser(process, functools.partial(bounds.masked_bound, process, estimator))


def _block_bound(config: Config, process: tokens.Masked) -> Bound:
    settings = config.objective.block
    estimator = _estimator(settings, "objective.block")
    bound = functools.partial(bounds.block_bound, process, estimator, settings.size)
    return _of_denoiser(process, bound)


def _block_likelihood(config: Config, process: Any, levels: int) -> dict[str, Likelihood]:
    bound = functools.partial(bounds.block_bound, process, bounds.by_count)
    size = config.objective.block.size
    return {"bound": _spread(functools.partial(bound, size), f"bound of blocks of {size}", levels)}


def _in_blocks(
    config: Config, process: tokens.Masked, sampler: Sampler, times: Array, length: int
) -> tuple[Sampler, Array]:
    size = config.objective.block.size
    with keyed("objective.block", block="objective.block.size"):
        num = tokens.num_blocks(length, size)
    return in_blocks(process, sampler, size), block_times(times, num)


def _replaced(config: Config, schedule: tokens.TokenSchedule, vocabulary: int) -> tokens.Replaced:
    return tokens.Replaced(schedule, vocabulary, config.objective.replaced.leave_one_out)


def _replaced_bound(config: Config, process: tokens.Replaced) -> Bound:
    return _of_denoiser(process, functools.partial(bounds.replaced_bound, process))


def _replaced_likelihood(config: Config, process: Any, levels: int) -> dict[str, Likelihood]:
    bound = functools.partial(bounds.replaced_bound, process)
    return {"bound": _spread(bound, "continuous-time bound of uniform noise", levels)}


def _of_denoiser(process: Process, bound: Callable[..., Any]) -> Bound:
    """From a bound of a denoiser to one of a network."""
    return lambda network, *of: bound(process.denoiser(network), *of)


def _spread(bound: Any, words: str, levels: int) -> Likelihood:
    def nats(denoiser: Denoiser, x_0: Array, cond: Cond, keys: Array) -> Array:
        return x_0.shape[1] * jnp.mean(spread(bound, levels, denoiser, x_0, cond, keys)[0], 0)

    return Likelihood(nats, words, levels)


def _exact(config: Config, process: Any, levels: int) -> dict[str, Likelihood]:
    def nats(denoiser: Denoiser, x_0: Array, cond: Cond, keys: Array) -> Array:
        log_p = denoiser(x_0, jnp.zeros(len(x_0)), cond).x_0
        return -jnp.sum(jnp.take_along_axis(log_p, x_0[..., None], -1), (1, 2))

    return {"exact": Likelihood(nats, "exact, from left to right", 1)}


def _by_count(process: tokens.Masked, order: str) -> Sampler:
    return unmasking.by_count(process, lookup(unmasking.ORDERS, order, "sample.by_count.order"))


def _left_to_right(process: tokens.Masked) -> Sampler:
    return unmasking.by_count(process, unmasking.left_to_right)


UNMASKING: dict[str, Callable[..., Sampler]] = {
    "unmasking": unmasking.ancestral,
    "by_count": _by_count,
    "remasking": unmasking.remasking,
    "first_hitting": unmasking.first_hitting,
}
FAMILIES = {
    "masked": Family(
        *(_masked, _masked_bound, UNMASKING),
        lambda config, net, v: TokenNetwork(net, v, config.objective.masked.timed),
    ),
    "block": Family(
        *(_masked, _block_bound, {name: UNMASKING[name] for name in ("unmasking", "by_count")}),
        lambda config, net, v: BlockNetwork(net, v),
        lambda config: functools.partial(block_mask, block=config.objective.block.size),
        *(_block_likelihood, _in_blocks),
    ),
    "replaced": Family(
        *(_replaced, _replaced_bound, {"replacement": replacement}),
        lambda config, net, v: TokenNetwork(net, v, config.objective.replaced.timed),
        likelihoods=_replaced_likelihood,
    ),
    "autoregressive": Family(
        *(_masked, lambda *_: autoregressive, {"left_to_right": _left_to_right}),
        lambda config, net, v: TokenNetwork(net, v, shifted=True),
        lambda config: causal,
        _exact,
        ordered=True,
    ),
}
"""By `objective.name`."""
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
    family.bound(config, family.process(config, schedule, 2))  # raises early
    if sample.sampler == "unmasking" and sample.unmasking.cached and objective.masked.timed:
        raise ConfigError(
            "sample.unmasking.cached=True needs objective.masked.timed=False: a network that is "
            "told the time predicts something else at each step"
        )

    def make(dataset: Dataset) -> Task:
        kind = dataset.kind
        if not kind.vocabulary:
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
        course = family.course(config, process, sampler, times, length)
        mask = family.mask(config)
        net = make_network(config, vocabulary, dataset.num_classes, mask=mask)
        inputs = jnp.zeros((1, length), jnp.int32), jnp.zeros(1), nothing(dataset, None)
        model = Applied(family.network(config, net, vocabulary), inputs)
        bound = family.bound(config, process)

        def loss(apply: Callable[..., Array], conditioning: Conditioning) -> TokenLoss:
            return TokenLoss(apply, bound, config.train.batch_size, conditioning)

        guide = functools.partial(make_guidance, config, schedule, None)
        dropout = objective.cond_dropout, dict(objective.part_dropout)
        return Task(
            model.init,
            model,
            inputs,
            loss(model.train, Conditioning(None, *dropout)),
            loss(model.heldout, PLAIN),
            Generator(
                *(model, process, Identity(kind.shape), *course, guide()),
                start=_start(sample.start, name, kind),
            ),
            guide=guide,
        )

    return make


def _start(text: str, objective: str, kind: Kind) -> Start:
    """The masks that `sample.start` leaves in a text."""
    if text == "normal":
        return NORMAL
    what = f"sample.start={text!r}"
    if objective in ("replaced", "block") or not isinstance(kind, Tokens):
        raise ConfigError(
            f"{what} must be 'normal': texts are filled in with objective.name='masked', or "
            "continued with 'autoregressive'"
        )
    try:
        x_T = kind.read(text)
    except DataError as error:
        raise ConfigError(f"{what}: {error}") from error
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
    for group in ("text", "image_condition"):
        if (other := config[group].name) != "none":
            raise ConfigError(f"objective.name={name!r} needs {group}.name='none', not {other!r}")
    if config.sample.guidance.schedule == "plus_plus":
        raise ConfigError(
            f"sample.guidance.schedule='plus_plus' is for DDIM, not objective.name={name!r}"
        )
