"""Twisted diffusion sampler (TDS): weighted particles of the posterior (Wu et al. 2023)."""

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in, posterior_mean, sample_noise
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.restoration.likelihood import posterior_std
from diffusion_jax.restoration.operators import Observation
from diffusion_jax.samplers.particles import Particles, evenly_weighted, resampled, weighted
from diffusion_jax.samplers.sde import transition_std
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


@checked(
    size="[1, inf)",
    resample_below="[0, 1]",
    variance=("small", "large"),
    data_std="(0, inf)",
    sigma_min="(0, inf)",
)
def twisted(
    schedule: Schedule,
    observation: Observation,
    size: int,
    resample_below: float = 0.5,
    variance: str = "large",
    data_std: float = 1.0,
    sigma_min: float = 0.01,
) -> Sampler:
    """`size` consecutive samples are weighted particles of one posterior (Alg. 1, Wu et al. 2023).

    The target is the chain of ancestral sampling, `p(x_s | x_t)`, given `y` at its end. With the
    twisting function `p~(y | x_t) = N(y; A(x_0_hat), (sigma_y^2 + r_t^2) I)` and its gradient `g`

        x_s ~ p~(x_s | x_t) = N(mean(x_t, x_0_hat + sigma_t^2 / alpha_t g), std^2)
        w *= p(x_s | x_t) p~(y | x_s) / (p~(x_s | x_t) p~(y | x_t))

    and `p(y | x_0)` at the end, so that with their number the weighted particles tend to the
    posterior of the chain, whatever the twisting function; with the number of steps, the chain
    tends to the data. `r_t^2` is the variance of `x_0` given `x_t` for data of variance
    `data_std^2`, as it were in all directions of y: `1 / r_t^2 = 1 / data_std^2 + alpha_t^2 /
    sigma_t^2`. Steps to `sigma_s = 0` are not twisted, as they draw no noise.

    A group is resampled, systematically, where its effective sample size is below `resample_below
    size`. The final weights are in the state, `Particles`, and are part of the result. A step costs
    one evaluation of the denoiser and its gradient.

    Args:
        schedule: the noise schedule.
        observation: the same for all samples of a group; `y` counts with all its entries.
        size: particles in a group; the batch size is a multiple of it.
        resample_below: share of the particles; 0 never resamples.
        variance: of the transitions, as for `ancestral`.
        data_std: standard deviation of the data, for `r_t`.
        sigma_min: least noise of `y` that is assumed: without noise all weights would be 0.

    Raises:
        ValueError: `size` does not divide the batch size.
    """
    sigma_y = jnp.maximum(observation.sigma, sigma_min)

    def log_likelihood(x_0: Array, spread: Array) -> Array:
        """`log N(y; A(x_0), (sigma_y^2 + spread^2) I)`, `[B]`."""
        std = per_sample(jnp.hypot(sigma_y, spread), observation.y)
        logs = jax.scipy.stats.norm.logpdf(observation.residual(x_0), scale=std)
        return jnp.sum(logs.reshape(len(logs), -1), axis=1)

    def init(x_T: Array) -> Particles:
        return evenly_weighted(x_T, size, x_T.dtype)

    def step(
        denoise: Denoise, state: Particles, x_t: Array, t: Array, s: Array, keys: Array
    ) -> Step:
        alpha, sigma = schedule.scales(t)
        spread = posterior_std(schedule, t, data_std)

        def twist(x: Array) -> tuple[Array, tuple[Array, Array]]:
            x_0 = denoise(x, t).x_0
            value = log_likelihood(x_0, spread)
            return jnp.sum(value), (value, x_0)

        gradient, (value, x_0) = jax.grad(twist, has_aux=True)(x_t)

        index, log_weights, gathered = resampled(
            state, value, size, resample_below, fold_in(keys, 0)
        )
        x_t, x_0, gradient, value = (a[index] for a in (x_t, x_0, gradient, value))

        std = transition_std(schedule, t, s, variance)
        tiny = jnp.finfo(alpha.dtype).tiny ** 0.5  # as alpha goes to 0 so does the gradient
        mean = posterior_mean(schedule, x_t, x_0, t, s)
        guided = x_0 + sigma**2 / jnp.maximum(alpha, tiny) * gradient
        shift = posterior_mean(schedule, x_t, guided, t, s) - mean
        push = jnp.where(std > 0, shift / jnp.where(std > 0, std, 1.0), 0.0)  # in units of std
        noise = sample_noise(fold_in(keys, 1), x_t.shape[1:])
        x_s = mean + std * (noise + push)
        # log p(x_s | x_t) - log p~(x_s | x_t) = |noise|^2 / 2 - |noise + push|^2 / 2
        ratio = -(push * noise + push**2 / 2).reshape(len(x_t), -1).sum(axis=1)
        carried = log_weights - value + ratio

        last = log_likelihood(x_s, jnp.zeros_like(sigma))
        return x_s, weighted(carried, last, gathered, size)

    return Sampler(init, step, stochastic=True)
