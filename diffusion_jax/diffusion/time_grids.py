"""Time grids for sampling: `steps + 1` times, descending from noise to clean."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array

RESOLVED = -2 * float(np.log(np.finfo(np.float32).eps))
"""`logsnr` above which the noise is below the relative precision of float32."""


def resolved(schedule: Schedule, times: Array) -> Array:
    """`times` without those, except the last, whose noise is below the precision of float32.

    There `(x_t - alpha_t x_0) / sigma_t` would be dominated by rounding, as in half of the steps of
    `quadratic` on EDM's schedule, where `sigma_t` is proportional to the seventh power of `t`.
    """
    held = np.asarray(schedule.logsnr(times)) < RESOLVED
    held[-1] = True
    return times[held]


@checked(steps="[1, inf)", t_max="(0, 1]", t_min="[0, t_max)")
def uniform(steps: int, t_max: float = 1.0, t_min: float = 0.0) -> Array:
    """Evenly spaced in `t`; 1,000 steps are exactly DDPM's."""
    return jnp.linspace(t_max, t_min, steps + 1)


@checked(steps="[1, inf)", t_max="(0, 1]", t_min="[0, t_max)")
def quadratic(steps: int, t_max: float = 1.0, t_min: float = 0.0) -> Array:
    """Evenly spaced in `sqrt(t)`, denser near the data (App. D.2, Song et al. 2021, DDIM)."""
    return jnp.linspace(t_max**0.5, t_min**0.5, steps + 1) ** 2


@checked(steps="[1, inf)", at="(0, 1)", begin="(end, 1)", end="(0, 1)")
def held(steps: int, at: float = 0.1, begin: float = 0.55, end: float = 0.05) -> Array:
    """Stands still: `u`, evenly spaced from 1 to 0, is mapped linearly, and `[end, begin]` to `at`.

    For samplers that correct at a time what they have drawn: ReMDM's "loop" (Wang et al. 2025),
    where these are `t_off` and `t_on`.
    """
    u = jnp.linspace(1, 0, steps + 1)
    return jnp.interp(u, jnp.array([0, end, begin, 1]), jnp.array([0, at, at, 1]))


@checked(steps="[1, inf)", t_max="(0, 1]", num_steps="[1, inf)")
def trailing(steps: int, t_max: float = 1.0, num_steps: int = 1000) -> Array:
    """`uniform`, rounded to a table of `num_steps` from its end (Table 2, Lin et al. 2024).

    Raises:
        ValueError: the table has fewer steps.
    """
    _check(steps, num_steps, t_max)
    return jnp.round(jnp.linspace(t_max, 0.0, steps + 1) * num_steps) / num_steps


@checked(steps="[1, inf)", t_max="(0, 1]", num_steps="[1, inf)")
def leading(steps: int, t_max: float = 1.0, num_steps: int = 1000) -> Array:
    """Every n-th step of a table of `num_steps`, from its first, then 0 (Lin et al. 2024).

    Used by most published code. It omits the noisiest steps of the table, so that sampling starts
    from pure noise at a time that still has signal.

    Raises:
        ValueError: the table has fewer steps.
    """
    _check(steps, num_steps, t_max)
    index = jnp.arange(steps - 1, -1, -1) * int(num_steps * t_max // steps)
    return jnp.append((index + 1) / num_steps, 0.0)


def _check(steps: int, num_steps: int, t_max: float) -> None:
    if steps > num_steps * t_max:
        raise ValueError(f"steps={steps} is more than the {num_steps * t_max:g} of the table")


@checked(steps="[1, inf)", t_max="(0, 1]", sigma_min="(0, sigma_max)", rho="(0, inf)")
def karras(
    schedule: Schedule,
    steps: int,
    t_max: float = 1.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Array:
    """`(sigma / alpha)^(1 / rho)` evenly spaced, then 0 (Eq. 5, Karras et al. 2022)."""
    return _even(
        schedule, steps, t_max, (sigma_min, sigma_max), lambda x: x ** (1 / rho), lambda y: y**rho
    )


@checked(steps="[1, inf)", t_max="(0, 1]", sigma_min="(0, sigma_max)")
def uniform_logsnr(
    schedule: Schedule,
    steps: int,
    t_max: float = 1.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Array:
    """`logsnr` evenly spaced between two levels of `sigma / alpha`, then 0 (Lu et al. 2022)."""
    return _even(schedule, steps, t_max, (sigma_min, sigma_max), jnp.log, jnp.exp)


def _even(
    schedule: Schedule,
    steps: int,
    t_max: float,
    levels: tuple[float, float],
    straight: Callable[[Array], Array],
    inverse: Callable[[Array], Array],
) -> Array:
    """Levels of `sigma / alpha` evenly spaced in `straight`, limited to the schedule's range."""
    ends = jnp.exp(-0.5 * schedule.logsnr(jnp.array([0.0, t_max])))
    low, high = straight(jnp.clip(jnp.array(levels), ends[0], ends[1]))
    ratio = inverse(jnp.linspace(high, low, steps))
    times = schedule.time_at(-2 * jnp.log(ratio))
    # A grid that reaches the schedule's end starts exactly there, without rounding errors.
    times = times.at[0].set(jnp.where(ends[1] <= levels[1], t_max, times[0]))
    return jnp.append(times, 0.0)
