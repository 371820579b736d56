"""Restoration where the damage is not known: the operator's parameters, from the picture itself.

The parameters phi of `y = A_phi(x) + sigma eps` of the greatest likelihood `p(y | phi)`, under the
prior of a trained denoiser, by Monte-Carlo expectation maximisation (Wei & Tanner 1990; with
diffusion models: Murata et al. 2023, Laroche et al. 2024):

    E step:  x ~ p(x | y, phi), by any method of restoration
    M step:  phi = argmin |y - A_phi(x)|^2 / sigma^2 + |phi - phi_0|^2
             sigma^2 = mean of (y - A_phi(x))^2

The second term is a normal prior around the values to begin with, of standard deviation 1 (of
logarithms, where a value is positive); it is weak, and holds what the picture does not show.

Little noise pins x to phi, `A_phi(x) ~ y`, and the iteration hardly moves: the brightness of a
window is known to `sigma / sqrt(pixels)`. So known noise is added to y, much at first and then
less. Each level has a likelihood of its own: with much noise there is only what is coarse in it,
such as `offset`; with little noise that stays as it was found, and details follow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from diffusion_jax.restoration.linear import Composed, Fading, GaussianBlur, masked
from diffusion_jax.restoration.nonlinear import Clipping, Gamma
from diffusion_jax.restoration.operators import Observation, Operator
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Key

Coordinates = tuple[Callable[[Any], Array], Callable[[Any], Array]]
"""From values to coordinates without limits, and back."""
POSITIVE: Coordinates = jnp.log, jnp.exp
REAL: Coordinates = jnp.asarray, jnp.asarray
PARAMETERS: dict[type, dict[str, Coordinates]] = {
    Fading: {"gain": POSITIVE, "offset": REAL},
    GaussianBlur: {"width": POSITIVE},
    Gamma: {"exponent": POSITIVE},
    Clipping: {"low": REAL, "high": REAL},
}
"""Arrays of operators that are estimated."""
STEPS = 20
"""Of the method of Levenberg and Marquardt in an M step."""


class Windows(NamedTuple):
    """Parts of a damaged picture, or several pictures with the same damage."""

    y: Array  # `[N, ...]`
    known: Array  # `[N or 1, ...]` as broadcast to y, 1 where y is of the picture and 0 elsewhere


class Estimate(NamedTuple):
    """Parameters that were found; arrays of the operator are `[1, ...]`, one for all samples."""

    operator: Operator
    sigma: Array  # `[]`, standard deviation of the noise of y
    rounds: dict[str, np.ndarray]  # each parameter and "sigma" after each round, `[rounds, ...]`
    average: int  # the last rounds, of which the mean was taken


def parameters(operator: Operator) -> dict[str, Array]:
    """What is estimated of an operator, or of a composition, by name."""
    return {
        name: getattr(part, name)
        for part in _parts(operator)
        for name in PARAMETERS.get(type(part), {})
    }


def with_parameters(operator: Any, values: Mapping[str, Array]) -> Any:
    """The operator, or the composition, with other values of its parameters."""
    if isinstance(operator, Composed):
        parts = operator.outer, operator.inner
        return Composed(*(with_parameters(part, values) for part in parts))
    own = parameters(operator)
    return operator.replace(**{name: values[name] for name in own}) if own else operator


@checked(average="[1, inf)")
def expectation_maximisation(
    draw: Callable[[Observation, int], Array],
    windows: Callable[[int], Windows],
    operator: Operator,
    sigma: float,
    levels: Sequence[float],
    key: Key,
    average: int,
) -> Estimate:
    """The parameters of greatest likelihood, as the mean over the last rounds.

    Args:
        draw: the E step, `(observation [N, ...], round) -> x [N, ..., C]` from the posterior.
        windows: what is seen in a round; new windows in each make the mean one over all of them.
        operator: with the values to begin with, arrays `[1, ...]`.
        sigma: standard deviation of the noise to begin with, on the scale of y.
        levels: standard deviation of the noise that is added to y in each round; above 0 if sigma
            may be 0.
        key: of that noise.
        average: number of the last rounds over which the mean is taken.

    Raises:
        ValueError: nothing of the operator can be estimated.
    """
    found = parameters(operator)
    if not found:
        raise ValueError("there is no parameter to estimate")
    each: list[dict[str, Array]] = []
    scale = jnp.asarray(sigma, jnp.result_type(float))
    for number, level in enumerate(levels):
        (y, known), noise = windows(number), jax.random.fold_in(key, number)
        y = known * (y + level * jax.random.normal(noise, y.shape, y.dtype))
        total = jnp.full(len(y), jnp.hypot(scale, level), y.dtype)
        seen = with_parameters(operator, found)
        x = draw(Observation(y, masked(seen, known), total), number)
        found, square = m_step(seen, operator, x, y, known, total[0])
        scale = jnp.sqrt(jnp.maximum(square - level**2, 0))
        each.append({**found, "sigma": scale})
    rounds = {name: np.stack([one[name] for one in each]) for name in each[0]}
    mean = {name: jnp.asarray(values[-average:].mean(0)) for name, values in rounds.items()}
    return Estimate(with_parameters(operator, mean), mean["sigma"], rounds, average)


@jax.jit
def m_step(
    operator: Operator, begun: Operator, x: Array, y: Array, known: Array, sigma: Array
) -> tuple[dict[str, Array], Array]:
    """`argmin_phi |known (y - A_phi(x))|^2 / sigma^2 + |phi - phi_0|^2`, and the mean square left.

    By the method of Levenberg and Marquardt (Marquardt 1963: damped by a multiple of the diagonal),
    from the parameters of the operator; phi_0 are those of `begun`, which may lack the mask.
    """
    table = {k: c for part in _parts(operator) for k, c in PARAMETERS.get(type(part), {}).items()}
    start, split = ravel_pytree({k: table[k][0](v) for k, v in parameters(operator).items()})
    prior, _ = ravel_pytree({k: table[k][0](v) for k, v in parameters(begun).items()})

    def values(phi: Array) -> dict[str, Array]:
        return {name: table[name][1](value) for name, value in split(phi).items()}

    def residual(phi: Array) -> Array:
        return (known * (y - with_parameters(operator, values(phi))(x))).ravel()

    def objective(phi: Array) -> Array:
        return jnp.append(residual(phi) / sigma, phi - prior)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        phi, damping = state
        r, slope = objective(phi), jax.jacfwd(objective)(phi)
        square = slope.T @ slope
        damped = square + damping * jnp.diag(jnp.diag(square))
        new = phi - jnp.linalg.solve(damped, slope.T @ r)
        better = jnp.sum(objective(new) ** 2) < jnp.sum(r**2)  # false if it is not finite
        return (jnp.where(better, new, phi), damping * jnp.where(better, 0.1, 10)), None

    (phi, _), _ = jax.lax.scan(step, (start, jnp.asarray(1e-3, y.dtype)), length=STEPS)
    count = jnp.sum(jnp.broadcast_to(known, y.shape))
    return values(phi), jnp.sum(residual(phi) ** 2) / count


def _parts(operator: Operator) -> list[Operator]:
    """The operators of a composition, the first that is applied first."""
    if isinstance(operator, Composed):
        return [*_parts(operator.inner), *_parts(operator.outer)]
    return [operator]
