"""Values between those of a table."""

import jax.numpy as jnp
import numpy as np

from diffusion_jax.types import Array


def linear(x: Array, points: np.ndarray, values: np.ndarray) -> Array:
    """Linear interpolation at `x` of any shape; constant beyond the ends, also at +-inf.

    `points` `[N]` increase strictly, `values` are `[N]`. It does what `jnp.interp` does without a
    loop or an index: within a scan, as in a sampler, an index that comes from a loop does not
    compile for GPUs (openxla/xla#49299).
    """
    dtype = jnp.result_type(x, float)
    at, to = jnp.asarray(points, dtype), jnp.asarray(values, dtype)
    after = jnp.sum(at[1:-1] <= x[..., None], -1, keepdims=True)  # number of the interval
    here = jnp.arange(len(at) - 1) == after
    low, high, start, end = (
        jnp.sum(jnp.where(here, ends, 0.0), -1) for ends in (at[:-1], at[1:], to[:-1], to[1:])
    )
    return start + jnp.clip((x - low) / (high - low), 0.0, 1.0) * (end - start)
