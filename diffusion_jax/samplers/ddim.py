"""DDIM (Song et al. 2021)."""

from typing import Any

import jax.numpy as jnp

from diffusion_jax.corruption import reverse_variances, sample_noise
from diffusion_jax.schedules import Schedule
from diffusion_jax.types import Array, Denoise, Sampler


def ddim(schedule: Schedule, eta: float = 0.0) -> Sampler:
    """`x_s = alpha_s x_0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z` (Eq. 12, Song et al. 2021).

    `std = eta sqrt(sigma_s^2 (1 - SNR_t / SNR_s))` (Eq. 16): `eta` 0 is deterministic, 1 is
    ancestral sampling with the small variance.
    """

    def step(
        denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array
    ) -> tuple[Array, Any]:
        x_0 = denoise(x_t, t).x_0
        eps = (x_t - schedule.alpha(t) * x_0) / schedule.sigma(t)
        variance = eta**2 * reverse_variances(schedule, t, s)[0]
        x_s = schedule.alpha(s) * x_0 + jnp.sqrt(schedule.sigma(s) ** 2 - variance) * eps
        if eta:
            x_s += jnp.sqrt(variance) * sample_noise(keys, x_t.shape[1:])
        return x_s, state

    return Sampler(init=lambda x_T: (), step=step, stochastic=eta > 0)
