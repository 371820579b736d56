"""Operators: what is seen of `x` in an observation `y = A(x) + noise`.

An operator maps batches, `x [B, ..., C] -> y [B, ...]`, and is a pytree whose arrays have one entry
per sample, `[B, ...]`, so that it is sharded and cut into batches like the samples. The axes
between the first and the last are those of space or time; there may be any number of them.

Methods need two things of an operator, and find them for all in one way: its value with its
derivative (`linearised`), and where there is one its singular value decomposition (`Spectrum`),
in which the equations of restoration are solved exactly and at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
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
    """What is known of `x`: `y = operator(x) + sigma eps`.

    The scale is that of the data, [-1, 1] for pixels and sound. A dark picture on it and a bright
    one on [0, 1] cannot be told apart, so that the latter is not refused: map it by `2 y - 1`.

    Raises:
        ValueError: y holds integers, as pixels are stored, or either is not finite, or sigma is
            negative or not one number for each sample. Arrays that are traced are not checked.
    """

    y: Array  # `[B, ...]`
    operator: Operator
    sigma: Array  # `[B]`, standard deviation of the noise on the data's own scale

    def __post_init__(self) -> None:
        if not (_concrete(self.y) and _concrete(self.sigma)):  # of a tree, anything
            return
        y, sigma = np.asarray(self.y), np.asarray(self.sigma)
        if y.dtype.kind in "iu":
            raise ValueError(
                f"y is {y.dtype}: observations are floats on the scale of the data, [-1, 1], as "
                "`diffusion_jax.data.to_float` makes them of uint8"
            )
        if not np.isfinite(y).all():
            raise ValueError(
                "y is not finite: give entries that are not seen any number, such as 0"
            )
        if sigma.shape != y.shape[:1]:
            raise ValueError(
                f"sigma is of shape {sigma.shape} and y of {y.shape}: it is one number for each "
                "sample, [B] for y [B, ...]"
            )
        if not (np.isfinite(sigma) & (sigma >= 0)).all():
            raise ValueError(f"sigma={sigma} must be finite and >= 0")

    def residual(self, x: Array) -> Array:
        """`y - A(x)`."""
        return self.y - self.operator(x)


def _concrete(a: Any) -> bool:
    """Whether the values of an array are there: it is neither traced nor of other processes."""
    if isinstance(a, jax.core.Tracer):
        return False
    return isinstance(a, np.ndarray) or (isinstance(a, jax.Array) and a.is_fully_addressable)


def check_range(observation: Observation, x: Array) -> None:
    """Raises a ValueError if y is of another scale than data on [-1, 1], as pixels in 0..255 are.

    Of an operator with a spectrum, `|U^T (y - b)| <= S_max |x|` but for the noise, and `|x|` is at
    most the root of the number of entries. Eight times as much is still let pass: data may be
    latents. Arrays that are traced are not checked.

    Args:
        observation: of `x`.
        x: array `[B, ..., C]`, of which only the shape and the type count.
    """
    if not all(map(_concrete, jax.tree.leaves(observation))):
        return
    with jax.ensure_compile_time_eval():
        spectrum = observation.operator.spectrum(jnp.zeros(x.shape, x.dtype))  # type: ignore[attr-defined]
        seen = np.asarray(spectrum.observed(observation.y))
        largest = np.asarray(jnp.max(spectrum.values))
    rms = np.sqrt(np.mean(seen**2, axis=tuple(range(1, seen.ndim))))
    if np.any(rms > 8 * (largest + np.asarray(observation.sigma))):
        raise ValueError(
            f"y has values of up to {np.abs(np.asarray(observation.y)).max():.3g}, and is of "
            "another scale than data on [-1, 1]: `diffusion_jax.data.to_float` maps 0..255 to it"
        )


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
