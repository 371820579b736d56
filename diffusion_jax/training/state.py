"""What training carries from step to step."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.training.ema import start_averages
from diffusion_jax.types import Array, Key, Params


class TrainState(NamedTuple):
    """A pytree: the number of steps taken, parameters, averages, optimizer's state."""

    step: Array
    params: Params
    ema: dict[str, Params]
    opt_state: optax.OptState


def create_state(
    params: Params, optimizer: optax.GradientTransformation, averages: Collection[str]
) -> TrainState:
    """State before the first step, with an average by each of these names."""
    ema = start_averages(averages, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))


def initial_state(
    init: Callable[[Key], Params],
    optimizer: optax.GradientTransformation,
    key: Key,
    averages: Collection[str],
) -> TrainState:
    """State before the first step, with parameters `init(key)`.

    Compiled whole: step by step, every shape of a parameter would be a program of its own. And
    lightly: it runs once, and LLVM's later passes take most of the time over the random bits.
    """
    create = jax.jit(
        lambda key: create_state(init(key), optimizer, averages),
        compiler_options={"xla_backend_optimization_level": 1},
    )
    return create(key)
