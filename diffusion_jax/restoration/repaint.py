"""RePaint: inpainting by replacing what is known (Lugmayr et al. 2022)."""

from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.restoration.encoded import Rotated
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.types import Array, Denoise, Denoised, Sampler, Step


def repaint(
    schedule: Schedule,
    observation: Observation,
    sampler: Sampler,
    noise: Array | None = None,
    end: Array | float = 0.0,
) -> Sampler:
    """After each step of `sampler`, `x_s = alpha_s y + sigma_s z` where `x` is known (Eq. 8 there).

    The jumps back of Alg. 1, which let the rest adapt to what is known, are those of `restart`,
    around this sampler or within it, on a grid with ascending steps, such as `restart_times`. As
    published `y` counts as without noise: the known pixels of the samples are those of `y`, to the
    bit, and so is its noise. What a mask darkens is made bright again. The rest is only
    approximately distributed as given `y`, and better with more jumps. A network that `sampler`
    asks between `t` and `s` sees what is known there too.

    Args:
        schedule: noise levels of the data.
        observation: the known pixels, by a mask.
        sampler: the method whose steps are taken.
        noise: `[B, ...]`, `z` of all steps, as in the pipelines of Stable Diffusion, where it is
            that of `x_T`. By default it is drawn anew in each step, as published by RePaint.
        end: last time of the grid, at which what is known is `y` itself.

    Raises:
        ValueError: the operator is not a mask, nor one that a codec has rotated.
    """
    operator = observation.operator
    rotated = operator if isinstance(operator, Rotated) else None
    mask = rotated.operator if rotated else operator
    if not isinstance(mask, Mask):
        raise ValueError(f"RePaint needs a mask, and the operator is {type(operator).__name__}")
    seen, y = mask.known > 0, observation.y / jnp.where(mask.known > 0, mask.known, 1)
    back = forth = lambda a: a
    if rotated:  # replaced are samples of sound, not coefficients
        seen, y = rotated.filled(seen), rotated.gain * rotated.filled(y)
        back, forth = rotated.turned_back, rotated.turned

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        z = sample_noise(fold_in(keys, 1), x_t.shape[1:]) if noise is None else noise

        def replaced(x: Array, r: Array) -> Array:
            known = schedule.alpha(r) * y + schedule.sigma(r) * back(z)
            return forth(jnp.where(seen, jnp.where(r > end, known, y), back(x)))

        def told(x: Array, r: Array) -> Denoised:
            return denoise(jnp.where(r == t, x, replaced(x, r)), r)

        x_s, state = sampler.step(told, state, x_t, t, s, fold_in(keys, 0))
        return replaced(x_s, s), state

    return sampler._replace(step=step, stochastic=noise is None or sampler.stochastic)
