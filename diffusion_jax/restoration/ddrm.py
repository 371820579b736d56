"""DDRM: restoration in the coordinates of a singular value decomposition (Kawar et al. 2022)."""

from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.restoration.likelihood import LEAST_VALUE, in_coordinates, needs_spectrum
from diffusion_jax.restoration.operators import Observation
from diffusion_jax.restoration.renoising import mixed
from diffusion_jax.samplers.ddim import noise_estimate
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


@checked(eta="[0, 1]", eta_b="[0, 1]")
def ddrm(
    schedule: Schedule, observation: Observation, eta: float = 0.85, eta_b: float = 1.0
) -> Sampler:
    """Each coordinate is denoised, and drawn towards `y` as far as its noise allows.

    With `A = U S V^T`, coordinates `x_0 = V^T x_0_hat` and `y' = S^+ U^T y`, whose noise is
    `sigma_y / S`, and the noise `l = sigma_s / alpha_s` to which the step goes (Eq. 8, Kawar et al.
    2022)

        V^T x_s / alpha_s = x_0 + l (sqrt(1 - eta^2) eps_hat + eta z)                     if S = 0,
            x_0 + l (sqrt(1 - eta^2) (y' - x_0) S / sigma_y + eta z)      if l < sigma_y / S,
            (1 - eta_b) x_0 + eta_b y' + sqrt(l^2 - eta_b^2 (sigma_y / S)^2) z             else.

    Without noise and with `eta_b = 1` what is seen is kept, and for `eta = 0` the rest has its own
    law: exact if it is independent of what is seen. A larger `eta` brings its mean closer else, but
    denoises new noise in each step, so that with many steps spread is lost: published are 20.
    Sampling starts from noise alone, not around `y'` (Eq. 7 there), which is the same if no signal
    is left there.

    Raises:
        ValueError: the singular value decomposition of the operator is not known.
    """
    needs_spectrum("ddrm", observation)

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0_hat = denoise(x_t, t).x_0
        (values, analyse, synthesise, observed), _ = in_coordinates(x_0_hat, observation)
        # Below that y' would be rounding errors.
        seen = values > LEAST_VALUE * jnp.max(values, axis=range(1, values.ndim), keepdims=True)
        scale = jnp.where(seen, values, 1.0)
        y, noise = observed(observation.y) / scale, per_sample(observation.sigma, x_t) / scale
        x_0, eps = analyse(x_0_hat), analyse(noise_estimate(schedule, x_t, x_0_hat, t))
        # Drawn in space, so that x stays real where coordinates are complex.
        z = analyse(sample_noise(keys, x_t.shape[1:]))
        level = schedule.sigma(s) / schedule.alpha(s)
        below = level < noise
        eps = jnp.where(seen, (y - x_0) / jnp.where(below, noise, 1.0), eps)
        std = jnp.sqrt(jnp.maximum(level**2 - (eta_b * noise) ** 2, 0.0))
        towards_y = (1 - eta_b) * x_0 + eta_b * y + std * z
        x_s = jnp.where(seen & ~below, towards_y, x_0 + level * mixed(eps, z, eta**2))
        return schedule.alpha(s) * synthesise(x_s), state

    return Sampler(init=lambda x_T: (), step=step, stochastic=True)
