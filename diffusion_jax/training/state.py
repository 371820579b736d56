"""The training state."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.types import Array, Key, Params


class TrainState(NamedTuple):
    """All values that change from step to step, as a pytree."""

    step: Array  # number of steps taken
    params: Params
    ema: dict[str, Params]  # averages of the parameters, by name
    opt_state: optax.OptState
    skipped: Array  # number of skipped steps in a row, up to now


def create_state(
    params: Params, optimizer: optax.GradientTransformation, averages: Collection[str]
) -> TrainState:
    """State before the first step, with an average by each of these names, equal to `params`."""
    ema = {name: jax.tree.map(jnp.copy, params) for name in averages}
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return TrainState(step, params, ema, optimizer.init(params), skipped)


def abstract_state(
    params: Params, optimizer: optax.GradientTransformation, averages: Collection[str]
) -> TrainState:
    """Shapes and dtypes of the state, from those of the parameters; nothing is computed."""
    return jax.eval_shape(lambda params: create_state(params, optimizer, averages), params)


def initial_state(
    init: Callable[[Key], Params],
    optimizer: optax.GradientTransformation,
    key: Key,
    averages: Collection[str],
    shardings: Callable[[TrainState], Any] | None = None,
    params: Params | None = None,
) -> TrainState:
    """State before the first step, with parameters `init(key)` and the given `shardings`.

    `params` replace the initial ones, if given.

    Compiled as one program: otherwise every parameter shape would be one of its own. With little
    optimisation: it runs once, and LLVM's later passes spend most of the time on the random bits.
    """
    shapes = jax.eval_shape(init, key)
    create = jax.jit(
        lambda key, params: create_state(
            init(key) if params is None else params, optimizer, averages
        ),
        out_shardings=shardings and shardings(abstract_state(shapes, optimizer, averages)),
        compiler_options={"xla_backend_optimization_level": 1},
    )
    return create(key, params)
