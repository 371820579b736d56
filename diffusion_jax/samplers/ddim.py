"""DDIM (Song et al. 2021)."""

from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import reverse_variances, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step

FAR = 30.0  # largest decrease of `sigma / alpha` in a step for which more than DDIM is used


def far(schedule: Schedule, t: Array, s: Array) -> Array:
    """Whether a step removes so much of the noise that only DDIM's formula is accurate.

    DDIM is exact for given `x_0`. Changes of `eps_hat` along the step, or added noise of the size
    at `t`, would be multiplied by `sigma / alpha` at `t` over that at `s`: thousands at the start
    of cosine schedules, or in the few steps of a coarse grid.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scales(t), schedule.scales(s)
    return (sigma_s > 0) & (sigma_t * alpha_s > FAR * sigma_s * alpha_t)


def noise_estimate(schedule: Schedule, x_t: Array, x_0: Array, t: Array) -> Array:
    """`eps_hat = (x_t - alpha_t x_0) / sigma_t` for scalar `t` with `sigma_t > 0`."""
    return (x_t - schedule.alpha(t) * x_0) / schedule.sigma(t)


def ddim_step(
    schedule: Schedule, x_t: Array, x_0: Array, t: Array, s: Array, eta: float = 0.0
) -> tuple[Array, Array]:
    """Mean `[B, ...]` and standard deviation of `x_s` given `x_t` and `x_0` (Eqs. 12 and 16)."""
    eps, sigma = noise_estimate(schedule, x_t, x_0, t), schedule.sigma(s)
    if not eta:
        return schedule.alpha(s) * x_0 + sigma * eps, jnp.zeros_like(sigma)
    variance = eta**2 * reverse_variances(schedule, t, s)[0]
    return schedule.alpha(s) * x_0 + jnp.sqrt(sigma**2 - variance) * eps, jnp.sqrt(variance)


@checked(eta="[0, 1]")
def ddim(schedule: Schedule, eta: float = 0.0) -> Sampler:
    """`x_s = alpha_s x_0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z` (Eq. 12, Song et al. 2021).

    `std = eta sqrt(sigma_s^2 (1 - SNR_t / SNR_s))` (Eq. 16): `eta` 0 is deterministic, 1 is
    ancestral sampling with the small variance.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        x_s, std = ddim_step(schedule, x_t, x_0, t, s, eta)
        return x_s + (std * sample_noise(keys, x_t.shape[1:]) if eta else 0.0), state

    return Sampler(init=lambda x_T: (), step=step, stochastic=eta > 0)
