"""Methods that alternate between prior and observation: DAPS and split Gibbs.

Both go from `x_t` to an `x_0` by a short run of a sampler, and from there to `x_s`, and draw given
`y` on the way. The observation never enters the denoiser, and may be of any kind.
"""

from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.restoration.conditional import Draw, exact, langevin
from diffusion_jax.restoration.likelihood import posterior_std
from diffusion_jax.restoration.operators import Observation
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.loop import sample
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


def _descend(
    sampler: Sampler, denoise: Denoise, x_t: Array, t: Array, steps: int, keys: Array
) -> Array:
    """`x_0` from `x_t` by `steps` steps of `sampler`, evenly spaced in time."""
    times = jnp.linspace(t, 0.0, steps + 1)
    return sample(lambda x, times, _: denoise(x, times[0]), sampler, times, x_t, {}, keys)[0]


@checked(steps="[1, inf)", data_std="(0, inf)")
def daps(
    schedule: Schedule,
    observation: Observation,
    steps: int = 5,
    draw: Draw = langevin,
    data_std: float = 1.0,
) -> Sampler:
    """Decoupled annealing posterior sampling (Alg. 1, Zhang et al. 2024).

        x_0_hat = ODE from x_t to time 0, by `steps` steps of Euler's
        x_0 ~ N(x_0; x_0_hat, r_t^2 I) p(y | x_0)
        x_s = alpha_s x_0 + sigma_s z

    The normal is in place of `p(x_0 | x_t)`. Its variance is that of data of variance
    `data_std^2`, `1 / r_t^2 = 1 / data_std^2 + alpha_t^2 / sigma_t^2`; published is a tuned one,
    `sigma_t^2` at first. With one step, where `x_0_hat` is the mean, it is exact for data
    `N(m, data_std^2 I)`. With more, `x_0_hat` is itself spread like the data, and their details
    are sharper, but noise is counted twice.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        mean = _descend(ddim(schedule), denoise, x_t, t, steps, keys)
        std = posterior_std(schedule, t, data_std)
        x_0 = draw(observation, mean, std, fold_in(keys, 0))
        noise = sample_noise(fold_in(keys, 1), x_t.shape[1:])
        return schedule.alpha(s) * x_0 + schedule.sigma(s) * noise, state

    return Sampler(init=lambda x_T: (), step=step, evaluations=steps, stochastic=True)


@checked(steps="[1, inf)")
def split_gibbs(
    schedule: Schedule,
    observation: Observation,
    sampler: Sampler,
    steps: int = 10,
    draw: Draw = exact,
) -> Sampler:
    """Split Gibbs sampling with a diffusion prior (PnP-DM, Alg. 1, Wu et al. 2024).

    Gibbs sampling of `p(x) N(z; x, rho^2 I) p(y | z)`, with `rho = sigma / alpha`: the denoising
    posterior by `steps` steps of `sampler`, then the likelihood,

        x_0 ~ p(x_0 | x_t)
        x_s = alpha_s z,    z ~ N(z; x_0, rho_s^2 I) p(y | z)

    The coupling `rho` falls along the grid of times. At a fixed one, in a grid that repeats a time,
    the law tends to its own: of `x_0` it is the posterior for a noise `sigma_y^2 I + rho^2 A A^T`.
    A smaller coupling is more exact, and needs more repetitions.

    Raises:
        ValueError: `sampler` draws no noise, so that its `x_0` are no draws given `x_t`.
    """
    if not sampler.stochastic:
        raise ValueError("split Gibbs needs a sampler that draws noise, such as ancestral")

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = _descend(sampler, denoise, x_t, t, steps, fold_in(keys, 0))
        alpha, sigma = schedule.scales(s)
        return alpha * draw(observation, x_0, sigma / alpha, fold_in(keys, 1)), state

    evaluations = steps * sampler.evaluations
    return Sampler(init=lambda x_T: (), step=step, evaluations=evaluations, stochastic=True)
