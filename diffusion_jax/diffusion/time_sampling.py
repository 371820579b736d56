"""Which times to train on: laws of `t` by their quantile function, drawn with low variance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Key

Quantile = Callable[[Array], Array]  # inverse distribution function on [0, 1]: `u` in [0, 1) -> `t`


PARTS = 64  # in how many parts of a law the densities are learned


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
    """`logit(t)` is normal (Sec. 3.1, Esser et al. 2024), kept within [t_min, 1 - t_min]."""

    def quantile(u: Array) -> Array:
        t = jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(u))
        return jnp.clip(t, t_min, 1 - t_min)

    return quantile


@checked(mean="(-inf, inf)", std="(0, inf)", t_min="[0, 1)")
def log_normal(
    schedule: Schedule, mean: float = -1.2, std: float = 1.2, t_min: float = 1e-4
) -> Quantile:
    """`log(sigma_t / alpha_t)` is normal (Table 1, Karras et al. 2022), `t` kept above t_min."""

    def quantile(u: Array) -> Array:
        logsnr = -2 * (mean + std * jax.scipy.special.ndtri(u))
        return jnp.maximum(schedule.time_at(logsnr), t_min)

    return quantile


def learned(logits: Array, u: Array) -> tuple[Array, Array]:
    """`u` spread anew over [0, 1], and the log density of what comes out, both shaped like `u`.

    The law has one density in each of K equal parts, K times the softmax of `logits` `[K]`, so
    that its distribution function is monotone whatever they are. With times `quantile(u)` it makes
    any schedule run slower where it is dense: VDM's learned schedule (Sec. 4.1 and 5.1, Kingma et
    al. 2021), as for noise levels between given ends that is all that is left to learn of one.
    """
    share = jax.nn.softmax(logits)
    num = len(logits)
    reached = jnp.concatenate([jnp.zeros(1), jnp.cumsum(share)])
    spread = jax.lax.stop_gradient(jnp.interp(u, reached, jnp.linspace(0, 1, num + 1)))
    part = jnp.minimum((spread * num).astype(int), num - 1)
    return spread, jnp.log(num * share[part])


def stratified(key: Key, index: Array, batch_size: int) -> Array:
    """Low-variance uniforms `u_i = frac(u + i / batch_size)` (App. I.1, Kingma et al. 2021).

    One `u` is drawn for the whole batch, whose key is the same everywhere. `index` `[B]` are places
    in the global batch, of which `B` may be a part, and `batch_size` is its size.
    """
    return jnp.mod(jax.random.uniform(key) + index / batch_size, 1.0)
