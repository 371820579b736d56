"""Conditioning as a dict of arrays, and what it is when there is none."""

import jax
import jax.numpy as jnp

from diffusion_jax.prediction import per_sample
from diffusion_jax.types import Array, Cond


def unconditional(cond: Cond) -> Cond:
    """The same conditioning switched off: label -1 is "no label"."""
    return {name: jnp.full_like(value, -1) for name, value in cond.items()}


def drop(cond: Cond, keys: Array, rate: float) -> Cond:
    """Switches each sample's conditioning off with probability `rate`, by its key in `keys` `[B]`.

    A network trained so knows both halves of classifier-free guidance (Ho & Salimans 2022).
    """
    if not rate:
        return cond
    off = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
    return jax.tree.map(
        lambda on, none: jnp.where(per_sample(off, on), none, on), dict(cond), unconditional(cond)
    )
