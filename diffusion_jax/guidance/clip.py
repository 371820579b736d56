"""Keeping `x_0_hat` within the range of the data."""

import jax.numpy as jnp

from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


@checked(limit="(0, inf)")
def clip(denoise: Denoiser, limit: float = 1.0) -> Denoiser:
    """Clips `x_0_hat` to [-limit, limit] (DDPM's `clip_denoised`); apply it outside of guidance."""

    def clipped(x_t: Array, t: Array, cond: Cond) -> Denoised:
        denoised = denoise(x_t, t, cond)
        return denoised._replace(x_0=jnp.clip(denoised.x_0, -limit, limit))

    return clipped
