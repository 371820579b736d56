"""The probability-flow ODE, solved with adaptive step sizes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers.ode import coordinate, norm, slope, straight_step, time_of
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step

MOST_STEPS = 1000  # solver steps per sampler step; more raise an error, as with NaN outputs
SMALLEST = 1e-3  # smallest `u = sigma / (alpha + sigma)` at which to evaluate; DDIM does the rest


def velocity(schedule: Schedule, denoise: Denoise, u: Array, y: Array) -> Array:
    """`dy/du = eps_hat - x_0_hat` in the coordinates of `ode` with scaling "flow"."""
    t = time_of(schedule, "flow", u)
    x_t = norm(schedule, "flow", t) * y
    return slope(schedule, "flow", x_t, denoise(x_t, t).x_0, t)


def integrate(
    rate: Callable[[Array, Any], Any], y: Any, start: Array, end: Array, rtol: float, atol: float
) -> tuple[Any, Array]:
    """Solves `dy/du = rate(u, y)` by Dormand & Prince's 5(4): `y` at `end`, and the step count.

    `y` is a tree of arrays `[B, ...]` at `start`, which may be above or below `end`. The step size
    follows the sample with the largest root-mean-square error, so that the tolerances (`rtol`
    relative to `y`, `atol` absolute) hold for every sample; within them a sample depends on its
    batch. A step evaluates the rate 6 times, the first one up to 3 times more.
    """
    import diffrax  # here: the import takes a third of a second, and few runs need it

    def largest(error: Any) -> Array:
        leaves = [e.reshape(len(e), -1) for e in jax.tree.leaves(error)]
        return jnp.sqrt(jnp.max(jnp.stack([jnp.max(jnp.mean(e**2, axis=1)) for e in leaves])))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(jax.jit(lambda u, y, _: rate(u, y))),  # traced once, called in many places
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
    """Integrates each step by Dormand & Prince's 5(4) with adaptive substeps (`integrate`).

    The equation is that of Sec. 4.3, Song et al. 2021, in their time. The cost depends on the
    tolerances: `evaluations` is the minimum, for a single substep.
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
