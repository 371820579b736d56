"""Which times to sample at: `steps + 1` times, descending from noise to clean."""

import jax.numpy as jnp

from diffusion_jax.types import Array


def uniform(steps: int, t_max: float = 1.0, t_min: float = 0.0) -> Array:
    """Evenly spaced in `t`: with 1,000 steps exactly DDPM's."""
    return jnp.linspace(t_max, t_min, steps + 1)


def quadratic(steps: int, t_max: float = 1.0, t_min: float = 0.0) -> Array:
    """Evenly spaced in `sqrt(t)`, denser near the data (App. D.2, Song et al. 2021, DDIM)."""
    return jnp.linspace(t_max**0.5, t_min**0.5, steps + 1) ** 2
