"""Denoisers given an observation: `E[x_0 | x_t, y]` from `E[x_0 | x_t]`, by its derivative.

With the denoiser D, its Jacobian J at `x_t`, and `C = Cov[x_0 | x_t] = (sigma_t^2 / alpha_t) J`,
Tweedie's formula is

    E[x_0 | x_t, y] = D + (sigma_t^2 / alpha_t) grad log p(y | x_t)

and if `x_0` given `x_t` is normal with mean D and covariance C,

    E[x_0 | x_t, y] = D + C A^T (A C A^T + sigma^2 I)^-1 (y - A D).

The methods differ in what takes the place of C in the inverse: a multiple of the identity (PiGDM),
a diagonal (TMPD), C itself (MMPS, exact for normal data). Products with C are of the transposed
Jacobian, and cost a backward pass of the network. An operator that is not linear is replaced by its
derivative at D. DPS instead descends the norm of the residual.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import posterior_mean
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.guidance.gradients import by_gradient
from diffusion_jax.guidance.scales import Scale, at, is_off
from diffusion_jax.restoration.likelihood import (
    noise_to_signal,
    posterior_std,
    regularised,
    seen_from,
)
from diffusion_jax.restoration.operators import Observation, linearised
from diffusion_jax.restoration.solvers import CG, GMRES, Solver
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser

Covariance = Callable[[Array], Array]
"""`v -> C v` for arrays like `x_t`."""


@dataclasses.dataclass(frozen=True)
class Conditioned:
    """A denoiser given an observation, for which a linear system is solved."""

    solve: Callable[[Array, Array, Cond], tuple[Denoised, Array]]

    def __call__(self, x_t: Array, t: Array, cond: Cond) -> Denoised:
        return self.solve(x_t, t, cond)[0]

    def residual(self, x_t: Array, t: Array, cond: Cond) -> Array:
        """The relative residual `[B]` with which the system was solved; 0 if it was exactly."""
        return self.solve(x_t, t, cond)[1]


@checked(data_std="(0, inf)")
def pigdm(
    denoise: Denoiser,
    observation: Observation,
    schedule: Schedule,
    *,
    data_std: float = 1.0,
    solver: Solver = CG,
) -> Conditioned:
    """`x_0 = D + C A^T (r_t^2 A A^T + sigma^2 I)^-1 (y - A D)` (Song et al. 2023).

    `r_t^2 = data_std^2 sigma_t^2 / (alpha_t^2 data_std^2 + sigma_t^2)` is the variance of `x_0`
    given `x_t` for normal data of variance `data_std^2` in each entry, for which the method is
    exact; 1 is the paper's. The whole gradient is added, as by Bayes' rule; the paper's sampler
    weights it by a further `r_t^2`.
    """

    def explain(x_0: Array, covariance: Covariance, t: Array) -> tuple[Array, Array]:
        return regularised(x_0, observation, posterior_std(schedule, t, data_std) ** 2, solver)

    return _conditioned(denoise, schedule, explain)


def tmpd(denoise: Denoiser, observation: Observation, schedule: Schedule) -> Conditioned:
    """`x_0 = D + C A^T (y - A D) / (A C A^T 1 + sigma^2)` (Boys et al. 2023).

    The matrix in the inverse is replaced by the diagonal of its row sums. The paper's operators,
    and images, have row sums of one sign; negative ones count as 0 here.
    """

    def explain(x_0: Array, covariance: Covariance, t: Array) -> tuple[Array, Array]:
        value, forward, adjoint = linearised(observation.operator, x_0)
        sums = forward(covariance(adjoint(jnp.ones_like(value))))
        total = jnp.maximum(sums, 0) + per_sample(observation.sigma**2, value)
        e = jnp.where(total > 0, (observation.y - value) / jnp.where(total > 0, total, 1), 0)
        return adjoint(e), jnp.zeros(len(x_0), x_0.dtype)

    return _conditioned(denoise, schedule, explain)


def mmps(
    denoise: Denoiser,
    observation: Observation,
    schedule: Schedule,
    *,
    solver: Solver = GMRES,
) -> Conditioned:
    """`x_0 = D + C A^T (A C A^T + sigma^2 I)^-1 (y - A D)` (Rozet et al. 2024).

    Exact for normal data, if the solver converges: `residual` tells. A network's Jacobian is not
    quite symmetric, hence GMRES. Each iteration costs a backward pass.
    """

    def explain(x_0: Array, covariance: Covariance, t: Array) -> tuple[Array, Array]:
        residual, forward, adjoint = seen_from(x_0, observation)

        def matvec(v: Array) -> Array:
            return forward(covariance(adjoint(v))) + per_sample(observation.sigma**2, v) * v

        e, left = solver(matvec, residual)
        return adjoint(e), left

    return _conditioned(denoise, schedule, explain)


def _conditioned(
    denoise: Denoiser,
    schedule: Schedule,
    explain: Callable[[Array, Covariance, Array], tuple[Array, Array]],
) -> Conditioned:
    """`x_0 = D + C e`, with `e` and its residual `[B]` from `explain(D, v -> C v, t)`."""

    def solve(x_t: Array, t: Array, cond: Cond) -> tuple[Denoised, Array]:
        def mean(x: Array) -> tuple[Array, Array | None]:
            denoised = denoise(x, t, cond)
            return denoised.x_0, denoised.variance

        x_0, pull, variance = jax.vjp(mean, x_t, has_aux=True)
        factor = per_sample(schedule.sigma(t) * noise_to_signal(schedule, t), x_t)

        def covariance(v: Array) -> Array:
            return factor * pull(v)[0]

        e, residual = explain(x_0, covariance, t)
        return Denoised(x_0 + covariance(e), variance), residual

    return Conditioned(solve)


@checked(zeta="[0, inf)", steps="[1, inf)")
def dps(
    denoise: Denoiser,
    observation: Observation,
    schedule: Schedule,
    *,
    zeta: Scale = 1.0,
    steps: int = 1000,
) -> Denoiser:
    """Descends the norm of the residual (Alg. 1, Chung et al. 2023), not its square.

    There, each step of ancestral sampling ends with

        x_s = x_s - zeta grad_{x_t} |y - A D(x_t)|,

    the step length `zeta / |y - A D|` for the square being `zeta` for the norm up to a factor 2.
    As a step adds `c x_0` to `x_s`, this adds `-zeta / c` times the gradient to `x_0`, with c that
    of the step of length `1 / steps` from `t`: with other numbers of steps in the sampler, samples
    are guided as much in total. The norm is of the whole sample, with data on [-1, 1]; of y, only
    that part counts in which something is seen.

    Args:
        denoise: the denoiser.
        observation: what is known; its `sigma` is not used.
        schedule: the noise schedule.
        zeta: length of a step; 0 is off.
        steps: number of steps of the published sampler.
    """

    def log_prob(x_t: Array, t: Array, cond: Cond, x_0: Array) -> Array:
        residual = seen_from(x_0, observation).residual
        square = jnp.sum(residual**2, axis=range(1, residual.ndim))
        return -jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))

    def scale(t: Array) -> Array:
        """`zeta / c` in units of `sigma_t^2 / alpha_t`, those of `by_gradient`."""
        before = jnp.maximum(t, 1 / steps)
        one = jnp.ones_like(t)
        weight = posterior_mean(schedule, 0 * one, one, before, before - 1 / steps)
        alpha, sigma = schedule.scales(t)
        unit = jnp.maximum(sigma**2, jnp.finfo(sigma.dtype).tiny ** 0.5)
        return at(zeta, t) * alpha / (unit * weight)

    return denoise if is_off((zeta, 0)) else by_gradient(denoise, log_prob, schedule, scale)
