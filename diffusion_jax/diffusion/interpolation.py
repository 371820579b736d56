"""Values between those of a table."""

import math

import jax.numpy as jnp
import numpy as np

from diffusion_jax.types import Array


def linear(x: Array, points: np.ndarray, values: np.ndarray) -> Array:
    """Linear interpolation at `x` of any shape; constant beyond the ends, also at +-inf.

    `points` `[N]` increase strictly, `values` are `[N]`. It does what `jnp.interp` does without a
    loop or an index: within a scan, as in a sampler, an index that comes from a loop does not
    compile for GPUs (openxla/xla#49299). Of blocks of `sqrt(N)` intervals the one is found first.
    """
    dtype = jnp.result_type(x, float)
    side = math.isqrt(len(points) - 2) + 1  # intervals in a block, and at least as many blocks
    blocks = -(-(len(points) - 1) // side)
    rows = np.minimum(side * np.arange(blocks)[:, None] + np.arange(side + 1), len(points) - 1)
    ends = np.concatenate([points[rows], values[rows]], 1)  # of the intervals of each block
    own = _interval(jnp.asarray(points[rows[:, 0]], dtype), x[..., None])
    # Exact, as it adds zeros to one entry.
    row = jnp.matmul(own.astype(dtype), jnp.asarray(ends, dtype), precision="highest")
    at, to = row[..., : side + 1], row[..., side + 1 :]
    here = _interval(at[..., :-1], x[..., None])
    low, high, start, end = (
        jnp.sum(jnp.where(here, one, 0.0), -1)
        for one in (at[..., :-1], at[..., 1:], to[..., :-1], to[..., 1:])
    )
    length = jnp.where(high > low, high - low, 1.0)
    return start + jnp.clip((x - low) / length, 0.0, 1.0) * (end - start)


def _interval(starts: Array, x: Array) -> Array:
    """Which interval `x` is in, bool like `starts` `[..., N]`: the last that starts at or below."""
    return jnp.arange(starts.shape[-1]) == jnp.sum(starts[..., 1:] <= x, -1, keepdims=True)
