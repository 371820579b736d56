"""Small programs whose traffic has a closed form; each gives its function and its arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.models.attention import attention

Made = tuple[Callable[..., Any], tuple[Any, ...]]
SIDE, DEPTH, ROWS = 256, 5, 512


def shaped(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def product() -> Made:
    """[512, 256] times [256, 1024]."""
    return jnp.matmul, (shaped(ROWS, SIDE), shaped(SIDE, 4 * SIDE))


def cast() -> Made:
    return lambda x: x.astype(jnp.bfloat16), (shaped(ROWS, SIDE),)


def transposed() -> Made:
    return lambda x: jnp.transpose(x, (2, 1, 0)), (shaped(ROWS, 3, SIDE),)


def stacked() -> Made:
    """The gradient of a scan of elementwise functions, whose inputs are kept in a stack."""

    def loss(x: Any) -> Any:
        return jax.lax.scan(lambda c, _: (jnp.sin(c) * 2, None), x, length=DEPTH)[0].sum()

    return jax.grad(loss), (shaped(ROWS, SIDE),)


def step() -> Made:
    """A training step of one matrix by Adam, with an average of the parameters; all donated."""
    optimizer = optax.adam(1e-3)

    def run(state: Any, x: Any) -> Any:
        params, mean, opt = state
        gradient = jax.grad(lambda w: jnp.sum((x @ w) ** 2))(params)
        updates, opt = optimizer.update(gradient, opt)
        params = optax.apply_updates(params, updates)
        return params, 0.9 * mean + 0.1 * params, opt

    weights = shaped(SIDE, SIDE)
    return run, ((weights, weights, jax.eval_shape(optimizer.init, weights)), shaped(ROWS, SIDE))


def attending() -> Made:
    """Attention of 2 heads of 64 over 256 positions, of 4 samples, without projections."""
    q = shaped(4, SIDE, 128, dtype=jnp.bfloat16)
    return lambda q, k, v: attention(q, k, v, 2), (q, q, q)


PROGRAMS = (product, cast, transposed, stacked, step, attending)
