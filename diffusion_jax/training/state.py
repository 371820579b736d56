"""What training carries from step to step, and the exponential moving average in it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.types import Array, Key, Params


class TrainState(NamedTuple):
    """A pytree: the number of steps taken, parameters, their EMA, and the optimizer's state."""

    step: Array
    params: Params
    ema: Params
    opt_state: optax.OptState


def create_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """State before the first step; the EMA starts at the parameters."""
    ema = jax.tree.map(jnp.copy, params)  # own buffers, since the step donates both
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))


def initial_state(
    init: Callable[[Key], Params], optimizer: optax.GradientTransformation, key: Key
) -> TrainState:
    """State before the first step, with parameters `init(key)`.

    Compiled whole: step by step, every shape of a parameter would be a program of its own. And
    lightly: it runs once, and LLVM's later passes take most of the time over the random bits.
    """
    create = jax.jit(
        lambda key: create_state(init(key), optimizer),
        compiler_options={"xla_backend_optimization_level": 1},
    )
    return create(key)


def update_ema(ema: Params, params: Params, step: Array, decay: float) -> Params:
    """`ema = d ema + (1 - d) params` with `d = min(decay, (1 + step) / (10 + step))`.

    The warm-up of `d` (`step` counts from 1) keeps the initial parameters from lingering: after
    `n` steps the average reaches back over the last `n / 10` or so, until `decay` limits it.
    """
    d = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + (1 - d) * (new - old), ema, params)
