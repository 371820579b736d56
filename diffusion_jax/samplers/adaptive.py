"""The probability-flow ODE by a method that chooses its own steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers.ode import coordinate, norm, slope, straight_step, time_of
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step

MOST_STEPS = 1000  # of its own in one step; more end in an error, as where the denoiser says NaN
SMALLEST = 1e-3  # least `u = sigma / (alpha + sigma)` to ask the denoiser at; from there on DDIM


def velocity(schedule: Schedule, denoise: Denoise, u: Array, y: Array) -> Array:
    """`dy/du = eps_hat - x_0_hat` in the coordinates of `ode` with scaling "flow"."""
    t = time_of(schedule, "flow", u)
    x_t = norm(schedule, "flow", t) * y
    return slope(schedule, "flow", x_t, denoise(x_t, t).x_0, t)


def integrate(
    rate: Callable[[Array, Any], Any], y: Any, start: Array, end: Array, rtol: float, atol: float
) -> tuple[Any, Array]:
    """`y` at `end`, and how many steps it took: `dy/du = rate(u, y)` by Dormand & Prince, 5(4).

    From `y`, a tree of arrays `[B, ...]`, at `start`, above or below `end`. Of all samples the one
    with the largest error, the root mean square over its entries, decides, so that the tolerances
    (`rtol` relative to `y`, `atol` absolute) hold for each, but a sample depends on its batch,
    within the tolerance. A step asks for the rate 6 times, the first up to 3 times more.
    """
    import diffrax  # here, as it takes a third of a second, and few runs come by

    def largest(error: Any) -> Array:
        leaves = [e.reshape(len(e), -1) for e in jax.tree.leaves(error)]
        return jnp.sqrt(jnp.max(jnp.stack([jnp.max(jnp.mean(e**2, axis=1)) for e in leaves])))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(jax.jit(lambda u, y, _: rate(u, y))),  # traced once, asked in many places
        diffrax.Dopri5(),
        t0=start,
        t1=end,
        dt0=None,
        y0=y,
        stepsize_controller=diffrax.PIDController(rtol, atol, norm=largest),
        max_steps=MOST_STEPS,
    )
    return jax.tree.map(lambda leaf: leaf[-1], solution.ys), solution.stats["num_steps"]


@checked(rtol="[0, inf)", atol="(0, inf)")
def adaptive(schedule: Schedule, rtol: float = 1e-4, atol: float = 1e-4) -> Sampler:
    """Each step by Dormand and Prince's method of order 5(4), in steps of its own: `integrate`.

    The equation is that of Sec. 4.3, Song et al. 2021, in their time. What it costs depends on the
    tolerance: `evaluations` is the least, that of one step of its own.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        start, goal = (coordinate(schedule, "flow", r) for r in (t, s))
        end = jnp.where(goal < start, jnp.minimum(start, jnp.maximum(goal, SMALLEST)), goal)
        rate = functools.partial(velocity, schedule, denoise)
        y, _ = integrate(rate, x_t / norm(schedule, "flow", t), start, end, rtol, atol)
        r = jnp.where(end == goal, s, time_of(schedule, "flow", end))
        x_r = norm(schedule, "flow", r) * y
        # From r to s = r this is x_r.
        return straight_step(schedule, x_r, denoise(x_r, r).x_0, r, s), state

    return Sampler(init=lambda x_T: (), step=step, evaluations=7)
