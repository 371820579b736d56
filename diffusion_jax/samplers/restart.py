"""Restart sampling: time grids that go back up to more noise (Xu et al. 2023).

`restart` adds the steps upwards to any sampler, and `restart_times` makes the grid. Other methods
with jumps can use the same parts.
"""

from typing import Any

import jax
import numpy as np

from diffusion_jax.diffusion.corruption import add_noise, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


def restart(schedule: Schedule, sampler: Sampler) -> Sampler:
    """Lets `sampler` run on a grid with ascending steps, which add exact noise and reset its state.

    Ascending steps, `s > t`, do not evaluate the denoiser: Restart costs its descending steps only
    (Alg. 2, Xu et al. 2023).
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        def up() -> Step:
            x_s = add_noise(schedule, x_t, t, s, sample_noise(keys, x_t.shape[1:]))
            return x_s, sampler.init(x_s)

        def down() -> Step:
            return sampler.step(denoise, state, x_t, t, s, keys)

        return jax.lax.cond(s > t, up, down)

    return sampler._replace(step=step, stochastic=True)


@checked(low="[0, high)", high="(0, 1]", repeats="[1, inf)", steps="[1, inf)")
def restart_times(
    times: np.ndarray, low: float, high: float, repeats: int, steps: int
) -> np.ndarray:
    """The grid `times` with `repeats` inserted passes of `steps` steps from `high` down to `low`.

    Passes start and end at the entries nearest to `high` and `low`, as published, and are spaced
    like `times` between those. For several intervals insert the lowest first.

    Raises:
        ValueError: the interval is empty on this grid.
    """
    start, end = (int(np.argmin(np.abs(times - level))) for level in (high, low))
    if high > times[0] or start >= end:
        raise ValueError(f"high={high} down to low={low} is no interval on a grid from {times[0]}")
    inner = np.interp(np.linspace(start, end, steps + 1), np.arange(end + 1), times[: end + 1])
    return np.concatenate([times[: end + 1], np.tile(inner, repeats), times[end + 1 :]])
