"""Distributions of training times, as quantile functions of stratified uniform numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Key

Quantile = Callable[[Array], Array]  # inverse distribution function on [0, 1]: `u` in [0, 1) -> `t`


PARTS = 64  # number of bins of a learned density


@checked(t_max="(0, 1]", t_min="[0, t_max)")
def uniform(t_min: float = 1e-4, t_max: float = 1.0) -> Quantile:
    """Uniform on [t_min, t_max)."""
    return lambda u: t_min + (t_max - t_min) * u


@checked(num_steps="[1, inf)")
def discrete(num_steps: int = 1000) -> Quantile:
    """Uniform on `1/N, 2/N .. 1`: DDPM's steps (Ho et al. 2020)."""
    return lambda u: (jnp.floor(u * num_steps) + 1) / num_steps


@checked(mean="(-inf, inf)", std="(0, inf)", t_min="[0, 0.5)")
def logit_normal(mean: float = 0.0, std: float = 1.0, t_min: float = 1e-4) -> Quantile:
    """`logit(t)` is normal (Sec. 3.1, Esser et al. 2024), clipped to [t_min, 1 - t_min]."""

    def quantile(u: Array) -> Array:
        t = jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(u))
        return jnp.clip(t, t_min, 1 - t_min)

    return quantile


@checked(mean="(-inf, inf)", std="(0, inf)", t_min="[0, 1)")
def log_normal(
    schedule: Schedule, mean: float = -1.2, std: float = 1.2, t_min: float = 1e-4
) -> Quantile:
    """`log(sigma_t / alpha_t)` is normal (Table 1, Karras et al. 2022), `t` clipped from below."""

    def quantile(u: Array) -> Array:
        logsnr = -2 * (mean + std * jax.scipy.special.ndtri(u))
        return jnp.maximum(schedule.time_at(logsnr), t_min)

    return quantile


def learned(logits: Array, u: Array) -> tuple[Array, Array]:
    """Maps uniform `u` to a learned density on [0, 1]: values and log density, shaped like `u`.

    The density is constant in each of K equal bins, K times the softmax of `logits` `[K]`, so its
    distribution function is monotone for any logits. Applied before `quantile(u)` it makes any
    schedule slower where the density is high: VDM's learned schedule (Sec. 4.1 and 5.1, Kingma et
    al. 2021), of which nothing else is left to learn for noise levels between given ends.
    """
    share = jax.nn.softmax(logits)
    num = len(logits)
    reached = jnp.concatenate([jnp.zeros(1), jnp.cumsum(share)])
    spread = jax.lax.stop_gradient(jnp.interp(u, reached, jnp.linspace(0, 1, num + 1)))
    part = jnp.minimum((spread * num).astype(int), num - 1)
    return spread, jnp.log(num * share[part])


def stratified(key: Key, index: Array, batch_size: int) -> Array:
    """Stratified uniform numbers `u_i = frac(u + i / batch_size)` (App. I.1, Kingma et al. 2021).

    One `u` is drawn for the whole batch; all processes have the same key. `index` `[B]` are
    positions in the global batch of size `batch_size`, of which these `B` may be a part.
    """
    return jnp.mod(jax.random.uniform(key) + index / batch_size, 1.0)
