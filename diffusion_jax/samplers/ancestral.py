"""Ancestral sampling of DDPM (Ho et al. 2020), with the variance choices of improved DDPM."""

from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import (
    learned_log_variance,
    posterior_mean,
    reverse_variances,
    sample_noise,
)
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


@checked(variance=("small", "large", "learned"))
def ancestral(schedule: Schedule, variance: str = "large") -> Sampler:
    """`x_s ~ N(mu(x_t, x_0_hat), Sigma)`: Eq. 11 (Ho et al. 2020) in terms of `x_0_hat`.

    `mu` is the mean of `q(x_s | x_t, x_0_hat)`; `Sigma` is its variance ("small"), DDPM's beta
    ("large", the upper bound), or between them as the network says ("learned", Eq. 15, Nichol &
    Dhariwal 2021). No noise is added in a step to `sigma_s = 0`.

    Raises:
        ValueError: `variance` is "learned" and the denoiser gives none.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0, fraction = denoise(x_t, t)
        small, large = reverse_variances(schedule, t, s)
        if variance == "learned":
            if fraction is None:
                raise ValueError("variance 'learned' needs a network that learned one")
            std = jnp.exp(0.5 * learned_log_variance(schedule, fraction, t, s))
        else:
            std = jnp.sqrt({"small": small, "large": large}[variance])
        std = jnp.where(schedule.sigma(s) > 0, std, 0.0)
        noise = sample_noise(keys, x_t.shape[1:])
        return posterior_mean(schedule, x_t, x_0, t, s) + std * noise, state

    return Sampler(init=lambda x_T: (), step=step, stochastic=True)
