"""DiffPIR's step: a fixed share of the noise is new in every step (Zhu et al. 2023)."""

from typing import Any

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers.ddim import noise_estimate
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


def mixed(old: Array, new: Array, share: float) -> Array:
    """`sqrt(1 - share) old + sqrt(share) new`: unit variance stays unit variance."""
    return (1 - share) ** 0.5 * old + share**0.5 * new


@checked(zeta="[0, 1]")
def renoising(schedule: Schedule, zeta: float = 0.3) -> Sampler:
    """`x_s = alpha_s x_0_hat + sigma_s (sqrt(1 - zeta) eps_hat + sqrt(zeta) z)`.

    Over the proximal denoiser this is DiffPIR (Alg. 1, Zhu et al. 2023). It is not DDIM with an
    `eta`, whose share of new noise is `eta^2 (1 - SNR_t / SNR_s)` and shrinks with the step; that
    share here is `zeta` in every step, so that new noise is denoised once more in each of them.
    Each time the spread of `x_0` given `x_t` is lost: with many steps samples contract.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0, noise = denoise(x_t, t).x_0, sample_noise(keys, x_t.shape[1:])
        eps = mixed(noise_estimate(schedule, x_t, x_0, t), noise, zeta)
        return schedule.alpha(s) * x_0 + schedule.sigma(s) * eps, state

    return Sampler(init=lambda x_T: (), step=step, stochastic=zeta > 0)
