"""What the objectives of tokens are made of, by `objective.name`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion import tokens
from diffusion_jax.diffusion.prediction import Network
from diffusion_jax.diffusion.process import Process
from diffusion_jax.evaluation.token_bits import Likelihood, spread
from diffusion_jax.from_config.choices import Config, keyed, lookup
from diffusion_jax.generation.generator import Request, WithParams, as_configured
from diffusion_jax.models.attention import block_mask, causal
from diffusion_jax.models.blocks import BlockNetwork, with_cache
from diffusion_jax.models.dit import Mask
from diffusion_jax.models.tokens import TokenNetwork, powers
from diffusion_jax.objectives import tokens as bounds
from diffusion_jax.objectives.masked_by_token import bound_by_token
from diffusion_jax.objectives.token_losses import Bound, autoregressive
from diffusion_jax.samplers import unmasking
from diffusion_jax.samplers.blocks import Parts, block_times, in_blocks
from diffusion_jax.samplers.replacement import replacement
from diffusion_jax.types import Array, Cond, Denoiser, Params, Sampler

ESTIMATORS: dict[str, Callable[..., bounds.Estimator]] = {
    "in_time": lambda steps: bounds.in_time,
    "by_count": lambda steps: bounds.by_count,
    "in_steps": bounds.in_steps,
}
"""By `objective.masked.estimator`."""


class Course(NamedTuple):
    """How samples are drawn: fields of a `Generator`."""

    sampler: Sampler
    times: Array
    with_params: WithParams = as_configured


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
    # `(config, process, network, L, sampler, times) -> Course` of a whole text
    course: Callable[..., "Course"] = lambda config, process, network, length, *of: Course(*of)
    # the setting by which the network is told the time; '' if it is not
    timed: Callable[[Config], str] = lambda config: ""
    # `(params, text of each token) -> words` on what the process has learned
    learned: Callable[[Params, Sequence[str]], str] = lambda params, pieces: ""
    fills_in: bool = False  # whether samples may start from texts with gaps
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
    config: Config,
    process: tokens.Masked,
    network: BlockNetwork,
    length: int,
    sampler: Sampler,
    times: Array,
) -> Course:
    size = config.objective.block.size
    with keyed("objective.block", block="objective.block.size"):
        num = tokens.num_blocks(length, size)

    whole = in_blocks(process, sampler, size)

    def cached(given: Sampler, params: Params, request: Request, guided: bool) -> Sampler:
        if guided or given is not whole:  # the cache is of the network alone
            return given
        evaluate = with_cache(network, params, length, request.cond)
        return in_blocks(process, sampler, size, Parts(network.cache, evaluate))

    course = Course(whole, block_times(times, num))
    return course._replace(with_params=cached) if config.sample.blocks.cached else course


def _by_token(
    config: Config, schedule: tokens.TokenSchedule, vocabulary: int
) -> tokens.MaskedByToken:
    return tokens.MaskedByToken(schedule, jnp.ones(vocabulary))


def _with_powers(process: tokens.MaskedByToken, params: Params) -> tokens.MaskedByToken:
    """The process with the powers that are learned."""
    return tokens.MaskedByToken(process.schedule, powers(params))


def _bound_by_token(config: Config, process: tokens.MaskedByToken) -> Bound:
    def bound(params: Params, network: Network, *of: Any) -> tuple[Array, Array]:
        return bound_by_token(_with_powers(process, params), process.denoiser(network), *of)

    return bound


def _likelihood_by_token(config: Config, process: Any, levels: int) -> dict[str, Likelihood]:
    def nats(params: Params, *of: Any) -> Array:
        return _nats(functools.partial(bound_by_token, _with_powers(process, params)), levels, *of)

    words = "continuous-time bound with the learned powers, two draws at each time"
    return {"bound": Likelihood(nats, words, 2 * levels)}


def _drawn_by_token(
    config: Config,
    process: tokens.MaskedByToken,
    network: Any,
    length: int,
    sampler: Sampler,
    times: Array,
) -> Course:
    def with_powers(given: Sampler, params: Params, *_: Any) -> Sampler:
        learned = unmasking.ancestral(_with_powers(process, params))
        return learned if given is sampler else given

    return Course(sampler, times, with_powers)


def _words_of_powers(params: Params, pieces: Sequence[str]) -> str:
    learned = np.asarray(powers(params))
    late = [repr(pieces[token]) for token in np.argsort(learned)]
    return (
        f"learned powers of {learned.min():.2f} to {learned.max():.2f}: tokens found first are "
        f"{', '.join(late[:-4:-1])}, and last {', '.join(late[:3])}"
    )


def _replaced(config: Config, schedule: tokens.TokenSchedule, vocabulary: int) -> tokens.Replaced:
    return tokens.Replaced(schedule, vocabulary, config.objective.replaced.leave_one_out)


def _replaced_bound(config: Config, process: tokens.Replaced) -> Bound:
    return _of_denoiser(process, functools.partial(bounds.replaced_bound, process))


def _replaced_likelihood(config: Config, process: Any, levels: int) -> dict[str, Likelihood]:
    bound = functools.partial(bounds.replaced_bound, process)
    return {"bound": _spread(bound, "continuous-time bound of uniform noise", levels)}


def _of_denoiser(process: Process, bound: Callable[..., Any]) -> Bound:
    """From a bound of a denoiser to one of a network."""
    return lambda params, network, *of: bound(process.denoiser(network), *of)


def _nats(
    bound: Any, levels: int, denoiser: Denoiser, x_0: Array, cond: Cond, keys: Array
) -> Array:
    """The mean of a bound over times, in nats per text."""
    return x_0.shape[1] * jnp.mean(spread(bound, levels, denoiser, x_0, cond, keys)[0], 0)


def _spread(bound: Any, words: str, levels: int) -> Likelihood:
    return Likelihood(lambda params, *of: _nats(bound, levels, *of), words, levels)


def _exact(config: Config, process: Any, levels: int) -> dict[str, Likelihood]:
    def nats(params: Params, denoiser: Denoiser, x_0: Array, cond: Cond, keys: Array) -> Array:
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
        timed=lambda config: "objective.masked.timed=True" * config.objective.masked.timed,
        fills_in=True,
    ),
    "masked_by_token": Family(
        *(_by_token, _bound_by_token, {"unmasking": unmasking.ancestral}),
        lambda config, net, v: TokenNetwork(net, v, timed=True, powers=True),
        likelihoods=_likelihood_by_token,
        course=_drawn_by_token,
        timed=lambda config: "objective.name='masked_by_token'",
        learned=_words_of_powers,
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
        fills_in=True,
        ordered=True,
    ),
}
"""By `objective.name`."""
