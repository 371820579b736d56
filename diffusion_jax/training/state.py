"""What training carries from step to step, and the exponential moving average in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.types import Array, Key, Params


class TrainState(NamedTuple):
    """A pytree: what training is at.

    Attributes:
        step: number of steps taken.
        params: parameters.
        ema: their moving average.
        opt_state: the optimizer's state.
        skipped: how many of the last steps, without a sound one between, changed nothing.
    """

    step: Array
    params: Params
    ema: Params
    opt_state: optax.OptState
    skipped: Array


def create_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """State before the first step; the EMA starts at the parameters."""
    ema = jax.tree.map(jnp.copy, params)  # own buffers, since the step donates both
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, ema, optimizer.init(params), jnp.copy(zero))


def initial_state(
    init: Callable[[Key], Params],
    optimizer: optax.GradientTransformation,
    key: Key,
    shardings: Callable[[TrainState], Any] | None = None,
) -> TrainState:
    """State before the first step, with parameters `init(key)`, laid out as `shardings` says.

    Compiled whole: step by step, every shape of a parameter would be a program of its own. And
    lightly: it runs once, and LLVM's later passes take most of the time over the random bits.
    """

    def create(key: Key) -> TrainState:
        return create_state(init(key), optimizer)

    places = None if shardings is None else shardings(jax.eval_shape(create, key))
    lightly = {"xla_backend_optimization_level": 1}
    return jax.jit(create, out_shardings=places, compiler_options=lightly)(key)


def update_ema(ema: Params, params: Params, step: Array, decay: float) -> Params:
    """`ema = d ema + (1 - d) params` with `d = min(decay, (1 + step) / (10 + step))`.

    The warm-up of `d` (`step` counts from 1) keeps the initial parameters from lingering: after
    `n` steps the average reaches back over the last `n / 10` or so, until `decay` limits it.
    """
    d = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + (1 - d) * (new - old), ema, params)
