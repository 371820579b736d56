"""RePaint: inpainting by replacing what is known (Lugmayr et al. 2022)."""

from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.types import Array, Denoise, Sampler, Step


def repaint(schedule: Schedule, observation: Observation, sampler: Sampler) -> Sampler:
    """After each step of `sampler`, `x_s = alpha_s y + sigma_s z` where `x` is known (Eq. 8 there).

    The jumps back of Alg. 1, which let the rest adapt to what is known, are those of `restart`,
    around this sampler or within it, on a grid with ascending steps, such as `restart_times`. As
    published `y` counts as without noise: the known pixels of the samples are those of `y`, to the
    bit, and so is its noise. The rest is only approximately distributed as given `y`, and better
    with more jumps.

    Raises:
        ValueError: the operator is not a mask.
    """
    operator = observation.operator
    if not isinstance(operator, Mask):
        raise ValueError(f"RePaint needs a mask, and the operator is {type(operator).__name__}")

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_s, state = sampler.step(denoise, state, x_t, t, s, fold_in(keys, 0))
        noise = sample_noise(fold_in(keys, 1), x_s.shape[1:])
        known = schedule.alpha(s) * observation.y + schedule.sigma(s) * noise
        return jnp.where(operator.known > 0, known, x_s), state

    return Sampler(sampler.init, step, sampler.evaluations, stochastic=True)
