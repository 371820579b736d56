"""Denoisers whose `x_0` is moved to where it agrees with an observation, without derivatives."""

import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.restoration.likelihood import (
    in_coordinates,
    inverse,
    needs_spectrum,
    noise_to_signal,
    regularised,
)
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.restoration.solvers import CG, Solver
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


def ddnm(denoise: Denoiser, observation: Observation, schedule: Schedule) -> Denoiser:
    """`x_0 = D + V L S^+ U^T (y - A D)`: without noise `A^+ y + (I - A^+ A) D` (Wang et al. 2023).

    With noise, a direction of singular value S is corrected by the share
    `L = min(1, S sigma_t / (alpha_t sigma))`, as in DDNM+: no more noise of `y` is added than
    `x_t` has. The sampler does not draw less noise to make up for it, as it does there: a denoiser
    does not know its steps.

    Raises:
        ValueError: the operator has no spectrum.
    """
    needs_spectrum("ddnm", observation)

    def projected(x_t: Array, t: Array, cond: Cond) -> Denoised:
        denoised = denoise(x_t, t, cond)
        (values, _, synthesise, _), residual = in_coordinates(denoised.x_0, observation)
        ratio, sigma = (
            per_sample(a, residual) for a in (noise_to_signal(schedule, t), observation.sigma)
        )
        there, brought = values * ratio, jnp.broadcast_to(sigma, residual.shape)
        share = jnp.where(brought > there, there / jnp.where(brought > 0, brought, 1), 1)
        one = jnp.ones_like(observation.sigma)
        e = share * values * inverse(values, one, 0 * one) * residual
        return denoised._replace(x_0=denoised.x_0 + synthesise(e))

    return projected


@checked(weight="(0, inf)")
def diffpir(
    denoise: Denoiser,
    observation: Observation,
    schedule: Schedule,
    *,
    weight: float = 1.0,
    solver: Solver = CG,
) -> Denoiser:
    """`x_0 = argmin_x |y - A x|^2 + rho_t |x - D|^2` (DiffPIR, Zhu et al. 2023).

    `rho_t = weight sigma^2 alpha_t^2 / sigma_t^2`; `weight` is the paper's lambda. The published
    sampler then replaces a share zeta of `eps_hat` by new noise: `renoising`. An
    operator that is not linear is replaced by its derivative at D: one step of Gauss and Newton.
    """

    def proximal(x_t: Array, t: Array, cond: Cond) -> Denoised:
        denoised = denoise(x_t, t, cond)
        # The gradient is 0 at D + r A^T (r A A^T + sigma^2)^-1 (y - A D) with r = sigma^2 / rho_t.
        variance = noise_to_signal(schedule, t) ** 2 / weight
        e, _ = regularised(denoised.x_0, observation, variance, solver)
        return denoised._replace(x_0=denoised.x_0 + per_sample(variance, e) * e)

    return proximal


def with_known(x: Array, observation: Observation) -> Array:
    """`x` `[B, ..., C]` with the entries that are known exactly: of masks, where there is no noise.

    They are those of `y` to the bit. Samplers end with rounded sums, hence also for their results.
    """
    if not isinstance(observation.operator, Mask):
        return x
    exact = (observation.operator.known == 1) & (per_sample(observation.sigma, x) == 0)
    return jnp.where(exact, observation.y, x)


def keep_known(denoise: Denoiser, observation: Observation) -> Denoiser:
    """Replaces entries of `x_0` that are known exactly; apply it after guidance and clipping.

    `pigdm` moves them towards `y` but not all the way, and `tmpd`, `mmps`, `ddnm` and `diffpir` do
    but for rounding. Other entries are hardly affected: their distance from the exact posterior of
    mixtures became larger or smaller, depending on `data_std`.
    """

    def kept(x_t: Array, t: Array, cond: Cond) -> Denoised:
        denoised = denoise(x_t, t, cond)
        return denoised._replace(x_0=with_known(denoised.x_0, observation))

    return kept
