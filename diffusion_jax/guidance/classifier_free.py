"""Classifier-free guidance (Ho & Salimans 2022)."""

import jax
import jax.numpy as jnp

from diffusion_jax.conditioning import unconditional
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


def classifier_free(denoise: Denoiser, scale: Array | float) -> Denoiser:
    """`x_0 = x_0(uncond) + scale (x_0(cond) - x_0(uncond))`: Eq. 6 with `scale = 1 + w`.

    The guided quantity is `x_0_hat`: as every prediction type is linear in it at given `x_t`, this
    is the same guidance for all of them. Scale 1 is off, and then costs nothing; the scale may be
    traced, so that another one does not compile again. A learned variance is the conditional one.
    """

    def guided(x_t: Array, t: Array, cond: Cond) -> Denoised:
        conditional = denoise(x_t, t, cond)
        without = jax.lax.cond(
            jnp.equal(scale, 1.0),
            lambda: conditional.x_0,
            lambda: denoise(x_t, t, unconditional(cond)).x_0,
        )
        x_0 = without + scale * (conditional.x_0 - without)
        return conditional._replace(x_0=x_0)

    return guided
