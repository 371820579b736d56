"""Draws of `x` from a normal prior and an observation: a part of methods that decouple the two.

All draw from `p(x) ~ N(x; mean, std^2 I) p(y | x)`.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in, sample_noise
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.restoration.likelihood import regularised
from diffusion_jax.restoration.operators import Observation, linearised
from diffusion_jax.restoration.solvers import Solver
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array

SOLVER = Solver(iterations=50, tolerance=1e-5)


class Draw(Protocol):
    """A way to draw."""

    def __call__(self, observation: Observation, mean: Array, std: Array, keys: Array) -> Array:
        """`x` `[B, ..., C]` for `mean` like it, `std` `[]` and one key per sample, `[B]`."""


def exact(observation: Observation, mean: Array, std: Array, keys: Array) -> Array:
    """An exact draw, for linear operators: the optimum for perturbed `y` and `mean`.

    `argmin |y + sigma_y z - A x|^2 / sigma_y^2 + |x - mean - std z'|^2 / std^2` has the law of `x`
    (Papandreou & Yuille 2010). By the decomposition of the operator, or by conjugate gradients.
    """
    of_x, of_y = (
        sample_noise(fold_in(keys, i), a.shape[1:]) for i, a in enumerate((mean, observation.y))
    )
    y = observation.y + per_sample(observation.sigma, of_y) * of_y
    x, variance = mean + std * of_x, jnp.full_like(observation.sigma, std**2)
    change, _ = regularised(x, dataclasses.replace(observation, y=y), variance, SOLVER)
    return x + std**2 * change


@checked(steps="[1, inf)", size="(0, 1]", sigma_min="(0, inf)")
def langevin(
    observation: Observation,
    mean: Array,
    std: Array,
    keys: Array,
    steps: int = 100,
    size: float = 0.1,
    sigma_min: float = 0.01,
) -> Array:
    """Unadjusted Langevin dynamics, for any operator that can be differentiated.

    `x <- x + h grad log p(x) + sqrt(2 h) z` with `h = size / (1 / std^2 + 1 / sigma_y^2)`, stable
    if the derivative of the operator has a norm of at most one. Starts from `N(mean, std^2 I)`,
    which is the answer in directions that are not seen; for those that are hardly seen it may take
    `(1 + std^2 / sigma_y^2) / size` steps. Variances become too large by the factor
    `1 / (1 - size / 2)` at most. `sigma_min` is the least noise of `y` that is assumed.
    """
    y_precision = per_sample(1 / jnp.maximum(observation.sigma, sigma_min) ** 2, mean)
    x_precision = 1 / std**2
    h = size / (x_precision + y_precision)

    def step(i: Array, x: Array) -> Array:
        near = linearised(observation.operator, x)
        gradient = y_precision * near.adjoint(observation.y - near.value)
        gradient -= x_precision * (x - mean)
        noise = sample_noise(fold_in(keys, i), x.shape[1:])
        return x + h * gradient + jnp.sqrt(2 * h) * noise

    first = mean + std * sample_noise(fold_in(keys, steps), mean.shape[1:])
    return jax.lax.fori_loop(0, steps, step, first)
