"""What an observation `y = A(x) + sigma eps` tells of `x`, seen from an estimate of it.

Where the singular value decomposition of the operator is known, this is stated in its coordinates:
the noise is the same there, entries of `y` in which nothing is seen are 0, and inverses are exact.
Other operators are replaced by their derivative at the estimate.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.restoration.operators import (
    Decomposed,
    Observation,
    Spectrum,
    check_range,
    linearised,
)
from diffusion_jax.restoration.solvers import Solver
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array

LEAST_SIGNAL = 1e-4  # times with less `alpha / sigma` are treated as if they had as much
LEAST_VALUE = 1e-4  # singular values below this share of the largest are not inverted


class Seen(NamedTuple):
    """An observation from `x`: `y - A(x + d) ~ residual - forward(d)`, an equality if A is affine.

    Residuals, and results of `forward`, are shaped like `y`, or like the coordinates of `x`.
    """

    residual: Array
    forward: Callable[[Array], Array]
    adjoint: Callable[[Array], Array]


def seen_from(x: Array, observation: Observation) -> Seen:
    """The observation from the estimate `x` `[B, ..., C]`."""
    if isinstance(observation.operator, Decomposed):
        (values, analyse, synthesise, _), residual = in_coordinates(x, observation)
        return Seen(residual, lambda d: values * analyse(d), lambda e: synthesise(values * e))
    value, forward, adjoint = linearised(observation.operator, x)
    return Seen(observation.y - value, forward, adjoint)


def in_coordinates(x: Array, observation: Observation) -> tuple[Spectrum, Array]:
    """The decomposition for `x` `[B, ..., C]`, and the residual in its coordinates.

    Raises:
        ValueError: y is of another scale.
    """
    check_range(observation, x)
    spectrum = observation.operator.spectrum(x)  # type: ignore[attr-defined]
    return spectrum, spectrum.observed(observation.y) - spectrum.values * spectrum.analyse(x)


def needs_spectrum(method: str, observation: Observation) -> None:
    """Raises a ValueError if the decomposition that a `method` needs is not known."""
    if not isinstance(observation.operator, Decomposed):
        name = type(observation.operator).__name__
        raise ValueError(f"{method} needs an operator with a spectrum, and {name} has none")


def inverse(values: Array, variance: Array, noise: Array) -> Array:
    """`1 / (variance S^2 + noise)` of singular values S `[B, ...]`; `variance`, `noise` `[B]`.

    Where there is hardly any noise, small values count as `LEAST_VALUE` of the sample's largest:
    rounding errors would be multiplied by their inverse. Where all is 0, so is the result.
    """
    variance, noise = per_sample(variance, values), per_sample(noise, values)
    largest = jnp.max(values, axis=range(1, values.ndim), keepdims=True)
    total = variance * values**2 + noise
    total = jnp.maximum(total, variance * (LEAST_VALUE * largest) ** 2)
    return jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)


def regularised(
    x: Array, observation: Observation, variance: Array, solver: Solver
) -> tuple[Array, Array]:
    """`A^T (variance A A^T + sigma^2 I)^-1 (y - A x)`, and how well it is solved.

    This is `grad log p(y)` at `x` if the truth is normal around `x` with the `variance` `[B]`. By
    the decomposition where there is one, and else by the `solver`.

    Returns:
        An array shaped like `x` `[B, ..., C]`, and the relative residual `[B]`, 0 if exact.
    """
    noise = observation.sigma**2
    if isinstance(observation.operator, Decomposed):
        (values, _, synthesise, _), residual = in_coordinates(x, observation)
        e = values * inverse(values, variance, noise) * residual
        return synthesise(e), jnp.zeros(len(x), x.dtype)
    residual, forward, adjoint = seen_from(x, observation)

    def matvec(v: Array) -> Array:
        return per_sample(variance, v) * adjoint(forward(v)) + per_sample(noise, v) * v

    # As `(variance A^T A + sigma^2 I)^-1 A^T (y - A x)`, which has a solution for any y.
    return solver(matvec, adjoint(residual))


def noise_to_signal(schedule: Schedule, t: Array) -> Array:
    """`sigma_t / alpha_t`, at most `1 / LEAST_SIGNAL`, for `t` `[B]`."""
    alpha, sigma = schedule.scales(t)
    return sigma / jnp.maximum(alpha, LEAST_SIGNAL * sigma)


@checked(data_std="(0, inf)")
def posterior_std(schedule: Schedule, t: Array, data_std: float) -> Array:
    """That of `x_0` given `x_t` for normal data of variance `data_std^2` in each entry."""
    alpha, sigma = schedule.scales(t)
    return data_std * sigma / jnp.hypot(data_std * alpha, sigma)
