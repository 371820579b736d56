"""The stochastic sampler of EDM (Alg. 2, Karras et al. 2022)."""

import math
from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import add_noise, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers.ode import heun
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


@checked(steps="[1, inf)", s_churn="[0, inf)", s_min="[0, s_max]", s_noise="[0, inf)")
def churn(
    schedule: Schedule,
    steps: int,
    s_churn: float = 40.0,
    s_min: float = 0.05,
    s_max: float = 50.0,
    s_noise: float = 1.003,
) -> Sampler:
    """A bit more noise before each of `steps` steps of Heun's method.

    With `k = sigma / alpha` and `y = x / alpha`,

        g = min(s_churn / steps, sqrt(2) - 1) if s_min <= k_t <= s_max else 0
        k_h = (1 + g) k_t,    y_h = y_t + s_noise sqrt(k_h^2 - k_t^2) z
        y_s = y_h + (k_s - k_h) (eps_hat(y_h, k_h) + eps_hat(y_s', k_s)) / 2

    where `y_s'` has `eps_hat(y_h, k_h)` for both. The level `k_h` is the schedule's at some time,
    at most its highest. A step to `sigma_s = 0` or from `alpha_t = 0` is Euler's.
    """
    most = min(s_churn / steps, 2**0.5 - 1)

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        k_t = schedule.sigma(t) / schedule.alpha(t)
        churned = (k_t >= s_min) & (k_t <= s_max) & jnp.isfinite(k_t) & (most > 0)
        higher = schedule.time_at(schedule.logsnr(t) - 2 * math.log1p(most))
        h = jnp.where(churned, jnp.maximum(higher, t), t)
        noise = s_noise * sample_noise(keys, x_t.shape[1:])
        x_h = jnp.where(churned, add_noise(schedule, x_t, t, h, noise), x_t)
        return heun(schedule, "ve").step(denoise, state, x_h, h, s, keys)

    return Sampler(init=lambda x_T: (), step=step, evaluations=2, stochastic=most > 0)
