"""The probability-flow ODE by a method that chooses its own steps."""

from typing import Any

import diffrax
import jax.numpy as jnp

from diffusion_jax.samplers.ode import coordinate, norm, slope, straight_step, time_of
from diffusion_jax.schedules import Schedule
from diffusion_jax.types import Array, Denoise, Sampler

MOST_STEPS = 1000
"""Of its own in one step; more end in an error, as where the denoiser says NaN."""
SMALLEST = 1e-3
"""Least `u = sigma / (alpha + sigma)` at which the denoiser is asked; from there on DDIM."""


def adaptive(schedule: Schedule, rtol: float = 1e-4, atol: float = 1e-4) -> Sampler:
    """Each step by Dormand and Prince's method of order 5(4), in steps of its own.

    `dy/du = eps_hat - x_0_hat` in the coordinates of `ode` with scaling "flow" (Sec. 4.3, Song et
    al. 2021, in their time). Of all samples the one with the largest error decides, so that the
    tolerance holds for each, but a sample depends on its batch, within the tolerance. What it costs
    depends on the tolerance: `evaluations` is the least, that of one step of its own.
    """

    def largest(error: Array) -> Array:
        return jnp.sqrt(jnp.max(jnp.mean(error.reshape(len(error), -1) ** 2, axis=1)))

    def step(
        denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array
    ) -> tuple[Array, Any]:
        def velocity(u: Any, y: Any, _: Any) -> Array:
            r = time_of(schedule, "flow", u)
            x_r = norm(schedule, "flow", r) * y
            return slope(schedule, "flow", x_r, denoise(x_r, r).x_0, r)

        start, goal = (coordinate(schedule, "flow", r) for r in (t, s))
        end = jnp.where(goal < start, jnp.minimum(start, jnp.maximum(goal, SMALLEST)), goal)
        y = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            diffrax.Dopri5(),
            t0=start,
            t1=end,
            dt0=None,
            y0=x_t / norm(schedule, "flow", t),
            stepsize_controller=diffrax.PIDController(rtol, atol, norm=largest),
            max_steps=MOST_STEPS,
        ).ys[-1]
        r = jnp.where(end == goal, s, time_of(schedule, "flow", end))
        x_r = norm(schedule, "flow", r) * y
        # From r to s = r this is x_r.
        return straight_step(schedule, x_r, denoise(x_r, r).x_0, r, s), state

    return Sampler(init=lambda x_T: (), step=step, evaluations=7)
