"""Operators: what is seen of `x` in an observation `y = A(x) + noise`.

An operator maps batches, `x [B, ..., C] -> y [B, ...]`, and is a pytree whose arrays have one entry
per sample, `[B, ...]`, so that it is sharded and cut into batches like the samples. The axes
between the first and the last are those of space or time; there may be any number of them.

Methods need two things of an operator, and find them for all in one way: its value with its
derivative (`linearised`), and where there is one its singular value decomposition (`Spectrum`),
in which the equations of restoration are solved exactly and at once.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from diffusion_jax.types import Array


class Operator(Protocol):
    """`y = A(x)`."""

    def __call__(self, x: Array) -> Array:
        """`[B, ..., C] -> [B, ...]`."""


class Spectrum(NamedTuple):
    """`A = U S V^T`, with real coordinates `z = V^T x` shaped like `x`.

    Of an affine operator, `A(x) = U S V^T x + b`, it is the linear part's, and `observed` takes `b`
    off: `observed(A(x)) = values * analyse(x)` of all operators. So a residual in the coordinates
    is `observed(y) - values * analyse(x)`, and not `observed` of `y - A(x)`.
    """

    values: Array  # S, real and >= 0, broadcastable to z; 0 in directions that are not seen
    analyse: Callable[[Array], Array]  # `x -> V^T x`
    synthesise: Callable[[Array], Array]  # `z -> V z`, real
    observed: Callable[[Array], Array]  # `y -> U^T (y - b)` in the coordinates z; 0 where S is


@runtime_checkable
class Decomposed(Protocol):
    """A linear or affine operator whose singular value decomposition is known."""

    def __call__(self, x: Array) -> Array:
        """`[B, ..., C] -> [B, ...]`."""

    def spectrum(self, x: Array) -> Spectrum:
        """The decomposition for arrays shaped like `x` `[B, ..., C]`."""


class Linearised(NamedTuple):
    """An operator near `x`: `A(x + d) ~ value + forward(d)`, an equality for a linear one."""

    value: Array  # A(x)
    forward: Callable[[Array], Array]  # `d -> A' d`
    adjoint: Callable[[Array], Array]  # `e -> A'^T e`


def linearised(operator: Operator, x: Array) -> Linearised:
    """Value, derivative and adjoint of the derivative of any operator at `x` `[B, ..., C]`."""
    value, forward = jax.linearize(operator, x)
    transposed = jax.linear_transpose(forward, x)
    return Linearised(value, forward, lambda e: transposed(e)[0])


@struct.dataclass
class Observation:
    """What is known of `x`: `y = operator(x) + sigma eps`."""

    y: Array  # `[B, ...]`
    operator: Operator
    sigma: Array  # `[B]`, standard deviation of the noise on the data's own scale, [-1, 1]

    def residual(self, x: Array) -> Array:
        """`y - A(x)`."""
        return self.y - self.operator(x)


@struct.dataclass
class Identity:
    """`y = x`: with noise, denoising."""

    def __call__(self, x: Array) -> Array:
        return x

    def spectrum(self, x: Array) -> Spectrum:
        return Spectrum(jnp.ones_like(x), *[lambda a: a] * 3)


@struct.dataclass
class Mask:
    """`y = known x`: inpainting."""

    known: Array  # `[B, ..., 1 or C]`, 1 where `x` is seen, 0 where not, between: darkened

    def __call__(self, x: Array) -> Array:
        return self.known * x

    def spectrum(self, x: Array) -> Spectrum:
        values = jnp.broadcast_to(self.known, x.shape).astype(x.dtype)
        return Spectrum(values, lambda a: a, lambda a: a, lambda y: jnp.where(values > 0, y, 0))
