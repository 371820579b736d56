"""Guidance by the gradient of a log probability: of a classifier, or of a picture's likeness."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.guidance.scales import Scale, at, is_off, limited
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser

LogProb = Callable[[Array, Array, Cond, Array], Array]
"""`(x_t [B, ...], t [B], cond, x_0_hat [B, ...]) -> [B]`: of what is wanted, given noisy data."""


@checked(scale="[0, inf)", max_norm="[0, inf)")
def by_gradient(
    denoise: Denoiser, log_prob: LogProb, schedule: Schedule, scale: Scale, max_norm: float = 0.0
) -> Denoiser:
    """`x_0 + scale sigma_t^2 / alpha_t grad log p(y | x_t)`: another gradient joins the score.

    A classifier of noisy data reads `x_t` and `t` (Dhariwal & Nichol 2021, Alg. 1). One of clean
    data reads `x_0_hat`, and then the gradient goes through the denoiser too (Disco Diffusion's
    guidance by CLIP; Bansal et al. 2023, Eq. 6); it is not exact, as `x_0_hat` is the mean of what
    the picture may be.

    Scale 0 is off, and costs nothing; 1 is Bayes' rule. `max_norm` is the largest norm of what is
    added, per root of its dimensions; 0 is no limit.
    """
    if is_off((scale, 0)):
        return denoise

    def guided(x_t: Array, t: Array, cond: Cond) -> Denoised:
        strength = at(scale, t)

        def pushed() -> Denoised:
            def total(x: Array) -> tuple[Array, Denoised]:
                denoised = denoise(x, t, cond)
                return jnp.sum(log_prob(x, t, cond, denoised.x_0)), denoised

            gradient, denoised = jax.grad(total, has_aux=True)(x_t)
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            # Where nothing is left of the data, its gradient is 0 too.
            factor = strength * sigma**2 / jnp.maximum(alpha, jnp.finfo(alpha.dtype).tiny ** 0.5)
            change = limited(per_sample(factor, x_t) * gradient, max_norm)
            return denoised._replace(x_0=denoised.x_0 + change)

        return jax.lax.cond(jnp.any(strength != 0), pushed, lambda: denoise(x_t, t, cond))

    return guided
