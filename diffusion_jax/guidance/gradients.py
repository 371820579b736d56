"""Guidance by the gradient of a log probability: of a classifier or of an image-text model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.guidance.scales import Scale, at, is_off, limited
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser

LogProb = Callable[[Array, Array, Cond, Array], Array]
"""`(x_t [B, ...], t [B], cond, x_0_hat [B, ...]) -> [B]`: log p(y | x_t) of the target y."""


@checked(scale="[0, inf)", max_norm="[0, inf)")
def by_gradient(
    denoise: Denoiser, log_prob: LogProb, schedule: Schedule, scale: Scale, max_norm: float = 0.0
) -> Denoiser:
    """`x_0 + scale sigma_t^2 / alpha_t grad log p(y | x_t)`: adds a gradient to the score.

    A classifier of noisy data uses `x_t` and `t` (Dhariwal & Nichol 2021, Alg. 1). One of clean
    data uses `x_0_hat`, and the gradient then goes through the denoiser too (Disco Diffusion's
    CLIP guidance; Bansal et al. 2023, Eq. 6); this is approximate, as `x_0_hat` is only the mean
    of `x_0` given `x_t`.

    Scale 0 is off and costs nothing; 1 is Bayes' rule. `max_norm` is the largest root mean square
    of the added term; 0 is no limit.
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
            # As alpha goes to 0 so does the gradient: this avoids 0 / 0.
            factor = strength * sigma**2 / jnp.maximum(alpha, jnp.finfo(alpha.dtype).tiny ** 0.5)
            change = limited(per_sample(factor, x_t) * gradient, max_norm)
            return denoised._replace(x_0=denoised.x_0 + change)

        return jax.lax.cond(jnp.any(strength != 0), pushed, lambda: denoise(x_t, t, cond))

    return guided
