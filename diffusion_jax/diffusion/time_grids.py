"""Time grids for sampling: `steps + 1` times, descending from noise to clean."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array

RESOLVED = -2 * float(np.log(np.finfo(np.float32).eps))
"""`logsnr` above which the noise is below the relative precision of float32."""

TABLE: dict[str, str] = {
    "steps": "[1, inf)",
    "t_max": "(0, 1]",
    "num_steps": "[1, inf)",
    "end": "[0, t_max)",
}
"""Ranges of the arguments that all grids of a table have."""


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


@checked(**TABLE)
def trailing(steps: int, t_max: float = 1.0, num_steps: int = 1000, end: float = 0.0) -> Array:
    """`uniform`, rounded to a table of `num_steps` from its last entry (Table 2, Lin et al. 2024).

    Args (those of all grids of a table):
        t_max: share of the table that is used.
        num_steps: number of entries; the times of a table are `1 / num_steps .. 1`.
        end: last time: 0, clean, or `1 / num_steps`, the first entry, for tables that are left at
            it (`set_alpha_to_one=False` of published configs). A grid that comes to it earlier has
            fewer steps: a step from a time to itself changes nothing.

    Raises:
        ValueError: the table has fewer entries, or the grid none above `end`.
    """
    last = _last(steps, t_max, num_steps)
    # Rounded as published code does, also at halves; its errors can add an entry below the first.
    return _times(np.round(np.arange(last, 0, -last / steps)[:steps]), num_steps, end)


@checked(**TABLE, offset="[0, inf)", skip=(0, 1))
def leading(
    steps: int,
    t_max: float = 1.0,
    num_steps: int = 1000,
    offset: int = 0,
    end: float = 0.0,
    skip: int = 0,
) -> Array:
    """Every n-th entry of a table of `num_steps`, from its first, then `end` (Lin et al. 2024).

    Used by most published code. It omits the noisiest entries of the table, so that sampling starts
    from pure noise at a time that still has signal.

    Args (the others are those of `trailing`):
        offset: shift of all entries towards the noise; 1 for Stable Diffusion (`steps_offset`).
        skip: entries that are left out at the clean end, with `n = num_steps // (steps + skip)`; 1
            for DPM-Solver++ as published.

    Raises:
        ValueError: the table has fewer entries, or the grid none above `end`.
    """
    every = _last(steps + skip, t_max, num_steps) // (steps + skip)
    entries = np.arange(steps + skip, skip, -1) * every - every + 1 + offset
    if entries[0] > num_steps:
        raise ValueError(
            f"offset={offset} leads to entry {entries[0]} of the {num_steps} of the table"
        )
    return _times(entries, num_steps, end)


@checked(**TABLE, skip=(0, 1))
def linspace(
    steps: int, t_max: float = 1.0, num_steps: int = 1000, end: float = 0.0, skip: int = 0
) -> Array:
    """Entries evenly spaced from the last to the first of a table, rounded (Lin et al. 2024).

    Then `end`. Arguments and errors are those of `leading`; with `skip=1` the first entry is left
    out, as in DPM-Solver++ as published, and the grid is even down to its end.
    """
    last = _last(steps + skip, t_max, num_steps)
    index = np.linspace(0, last - 1, steps + skip).round()[skip:]
    return _times(index[::-1] + 1, num_steps, end)


def _last(steps: int, t_max: float, num_steps: int) -> int:
    """The last entry that is used, counted from 1."""
    if steps > num_steps * t_max:
        raise ValueError(f"steps={steps} is more than the {num_steps * t_max:g} of the table")
    return round(num_steps * t_max)


def _times(entries: np.ndarray, num_steps: int, end: float) -> Array:
    """Times of descending entries, counted from 1, as far as they are above `end`; then `end`."""
    times = entries / num_steps
    if not times[0] > end:
        raise ValueError(f"end={end:g} must be below the first time of the grid, {times[0]:g}")
    return jnp.asarray(np.append(times[times > end], end))


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
