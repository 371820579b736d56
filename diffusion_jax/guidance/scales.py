"""Guidance scales as functions of time."""

from collections.abc import Callable

import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array

Scale = float | Array | Callable[[Array], Array]
"""A guidance scale, or one for each time: `t [B] -> [B]`. Guidance costs nothing at times at which
such a function is off: that branch of the program is not executed."""


def at(scale: Scale, t: Array) -> Array:
    """The scale at times `t` `[B]`: `[B]`."""
    t = jnp.asarray(t)
    return jnp.broadcast_to(jnp.asarray(scale(t) if callable(scale) else scale, t.dtype), t.shape)


def is_off(*pairs: tuple[Scale, float]) -> bool:
    """Whether each scale is a Python number equal to its off value."""
    return all(isinstance(scale, float | int) and scale == off for scale, off in pairs)


def limited(change: Array, max_norm: float) -> Array:
    """`change` `[B, ...]` with its root mean square limited to `max_norm`; 0 is no limit."""
    if not max_norm:
        return change
    rms = jnp.sqrt(jnp.mean(change**2, range(1, change.ndim), keepdims=True))
    return change * jnp.minimum(1, max_norm / jnp.maximum(rms, 1e-12))


@checked(low="[0, high)", high="(0, 1]")
def within(scale: Scale, low: float, high: float, off: float = 1.0) -> Scale:
    """`scale` for `low <= t <= high`, and `off` elsewhere (Kynkaanniemi et al. 2024).

    From 0 to 1 it is `scale` itself.
    """
    if (low, high) == (0, 1):
        return scale

    def limited(t: Array) -> Array:
        return jnp.where((t >= low) & (t <= high), at(scale, t), off)

    return limited


def linear(scale: Array | float) -> Scale:
    """`1 + 2 (scale - 1) (1 - t)`: grows from 1 at pure noise, with mean `scale`.

    The linear weights of Wang et al. 2024 ("Analysis of classifier-free guidance weight
    schedulers"), section 3.
    """
    return lambda t: 1 + 2 * (scale - 1) * (1 - t)


def cosine(scale: Array | float) -> Scale:
    """`1 + (scale - 1) (1 + cos(pi t))`: as `linear`, along half a cosine (same source)."""
    return lambda t: 1 + (scale - 1) * (1 + jnp.cos(jnp.pi * t))


@checked(scale="[0, 1]")
def plus_plus(scale: Array | float, schedule: Schedule, times: Array) -> Scale:
    """CFG++ (Chung et al. 2025), written as a guidance scale for each step from `t` to `s`.

    Its DDIM step (Alg. 2 there) is `x_s = alpha_s x_0' + sigma_s eps(none)` with the guided
    `x_0' = x_0(none) + scale (x_0(cond) - x_0(none))`, `scale` in [0, 1]. That equals the ordinary
    DDIM step, which uses the guided noise, with the larger scale

        scale / (1 - exp((logsnr_t - logsnr_s) / 2)).

    It is therefore valid for DDIM without noise, on these `times` `[steps + 1]`, descending.
    """

    def of_step(t: Array) -> Array:
        # The last entry that is at least t, with a tolerance far below the spacing for rounding.
        number = jnp.sum(times[:-1] > t[:, None] * (1 + 1e-6), axis=1)
        s = times[1:][jnp.clip(number, 0, len(times) - 2)]
        ratio = schedule.sigma(s) * schedule.alpha(t) / (schedule.alpha(s) * schedule.sigma(t))
        return scale / (1 - ratio)

    return of_step


SCHEDULES: dict[str, Callable[[Array | float], Scale]] = {
    "constant": lambda scale: scale,
    "linear": linear,
    "cosine": cosine,
}
"""Guidance schedules by name."""
