"""The history of multistep methods: past denoiser values and the polynomial through them.

With nodes `c_0` (now), `c_1`, ... (before) and values `f_0`, `f_1`, ... the polynomial through them
is, in Newton's form and with `tau = c - c_0`, `tau_j = c_j - c_0`,

    p(tau) = f_0 + f[0, 1] tau + f[0, 1, 2] tau (tau - tau_1) + ...

where `f[0, .., k]` are divided differences. Omitting the last terms lowers the order: this is how a
method starts with few values, passes over coordinates that are not finite, and avoids
extrapolating too far.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from diffusion_jax.types import Array

REACH = 5.0  # steps longer than this many times the last one do not use earlier values


class History(NamedTuple):
    """The last values of a multistep method, newest first."""

    nodes: Array  # `[P]`, coordinates of the values
    values: Array  # `[P, B, ...]`
    known: Array  # `[]`, number of valid values, counted from the newest: those with finite nodes


def empty(x_T: Array, size: int) -> History:
    """Room for `size` values shaped like `x_T`."""
    return History(
        jnp.zeros(size, x_T.dtype), jnp.zeros((size, *x_T.shape), x_T.dtype), jnp.array(0)
    )


def push(history: History, node: Array, value: Array) -> History:
    """Adds the newest value; one at an infinite node invalidates itself and all before it."""
    finite = jnp.isfinite(node)
    return History(
        jnp.roll(history.nodes, 1).at[0].set(jnp.where(finite, node, 0.0)),
        jnp.roll(history.values, 1, axis=0).at[0].set(value),
        jnp.where(finite, jnp.minimum(history.known + 1, len(history.nodes)), 0),
    )


def correction(history: History, h: Array, moments: Sequence[Array]) -> Array:
    """`int w(tau) (p(tau) - f_0) dtau`, `[B, ...]`, from the moments `int w(tau) tau^j dtau`.

    It is 0 where the step length `h` is `too_far`. `moments` has one entry for each value in
    `history`; the first is not used.
    """
    nodes, table, known = history.nodes, list(history.values), history.known
    led = ~too_far(h, nodes[0] - nodes[1]) if len(nodes) > 1 else False
    total, basis = jnp.zeros_like(table[0]), [1.0]
    for k in range(1, len(nodes)):
        gaps = nodes[:-k] - nodes[k:]
        # Equal nodes (empty slots, or steps of length 0) have a difference of 0.
        gaps = jnp.where(gaps == 0, 1.0, gaps)
        table = [(table[j] - table[j + 1]) / gaps[j] for j in range(len(nodes) - k)]
        basis = _times(basis, nodes[k - 1] - nodes[0])
        integral = sum(b * moment for b, moment in zip(basis, moments, strict=False))
        total += jnp.where(led & (k < known), integral, 0.0) * table[0]
    return total


def too_far(h: Array, before: Array) -> Array:
    """Whether a step `h` is too long to extrapolate from values that are `before` apart.

    An example is the last step of a schedule with most of its noise levels next to `t = 0`.
    """
    return jnp.abs(h) > REACH * jnp.abs(before)


def _times(polynomial: list, root: Array) -> list:
    """Coefficients of `polynomial(tau) (tau - root)`, lowest power first."""
    return [
        higher - root * lower
        for higher, lower in zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)
    ]
