"""What training carries from step to step."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.types import Array, Key, Params


class TrainState(NamedTuple):
    """A pytree: what training is at."""

    step: Array  # number of steps taken
    params: Params
    ema: dict[str, Params]  # averages of the parameters, by name
    opt_state: optax.OptState
    skipped: Array  # steps that left the parameters as they were, since the last sound one


def create_state(
    params: Params, optimizer: optax.GradientTransformation, averages: Collection[str]
) -> TrainState:
    """State before the first step, with an average by each of these names: a copy to begin with."""
    ema = {name: jax.tree.map(jnp.copy, params) for name in averages}
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return TrainState(step, params, ema, optimizer.init(params), skipped)


def abstract_state(
    init: Callable[[Key], Params],
    optimizer: optax.GradientTransformation,
    averages: Collection[str],
) -> TrainState:
    """Shapes and types of the state; nothing is computed."""
    key = jax.eval_shape(jax.random.key, 0)
    return jax.eval_shape(lambda key: create_state(init(key), optimizer, averages), key)


def initial_state(
    init: Callable[[Key], Params],
    optimizer: optax.GradientTransformation,
    key: Key,
    averages: Collection[str],
    shardings: Callable[[TrainState], Any] | None = None,
    params: Params | None = None,
) -> TrainState:
    """State before the first step, with parameters `init(key)`, laid out as `shardings` says.

    With `params` these take their place.

    Compiled whole: step by step, every shape of a parameter would be a program of its own. And
    lightly: it runs once, and LLVM's later passes take most of the time over the random bits.
    """
    create = jax.jit(
        lambda key, params: create_state(
            init(key) if params is None else params, optimizer, averages
        ),
        out_shardings=shardings and shardings(abstract_state(init, optimizer, averages)),
        compiler_options={"xla_backend_optimization_level": 1},
    )
    return create(key, params)
