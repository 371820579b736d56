"""Groups of weighted particles: the parts that sequential Monte Carlo methods share.

`size` consecutive samples of a batch are the particles of a group.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.types import Array


class Particles(NamedTuple):
    """Weights of groups of particles, each entry `[B]`."""

    log_weights: Array  # of the samples in their group: their exponentials have the sum 1
    log_evidence: Array  # of the group: log of an unbiased estimate of the target's normaliser
    gathered: Array  # evidence of the weights before the last resampling
    carried: Array  # weights since then, without the twisting function at the present state

    def effective_sizes(self, size: int) -> Array:
        """`1 / sum w^2` of each group, from 1 to `size`: `[B / size]`."""
        return 1 / jnp.sum(jnp.exp(2 * self.log_weights).reshape(-1, size), axis=1)


def evenly_weighted(x_T: Array, size: int, dtype: jnp.dtype) -> Particles:
    """The particles in the beginning.

    Raises:
        ValueError: `size` does not divide the batch size.
    """
    if len(x_T) % size:
        raise ValueError(f"a batch of {len(x_T)} samples must be a multiple of size={size}")
    zeros = jnp.zeros(len(x_T), dtype)
    return Particles(zeros - jnp.log(size), zeros, zeros, zeros)


def resampled(
    state: Particles, log_twist: Array, size: int, resample_below: float, keys: Array
) -> tuple[Array, Array, Array]:
    """Resamples, systematically, groups whose effective sample size is low.

    Args:
        state: the particles.
        log_twist: `[B]`, the twisting function at the present state.
        size: particles in a group.
        resample_below: share of the particles.
        keys: `[B]`; of a group, the first.

    Returns:
        Places of the particles that go on, their log weights (0 where they were resampled), and the
        evidence gathered, each `[B]`.
    """
    log_weights = state.carried + log_twist
    own = jnp.arange(len(log_weights)).reshape(-1, size)
    shares = jax.nn.softmax(log_weights.reshape(-1, size), axis=1)
    low = 1 / jnp.sum(shares**2, axis=1) < resample_below * size
    chosen = own[:, :1] + jax.vmap(systematic)(keys[::size], shares)
    index = jnp.where(low[:, None], chosen, own).ravel()
    low = jnp.repeat(low, size)
    gathered = state.gathered + jnp.where(low, _log_mean(log_weights, size), 0.0)
    return index, jnp.where(low, 0.0, log_weights), gathered


def weighted(carried: Array, log_target: Array, gathered: Array, size: int) -> Particles:
    """The particles after a step, with `log_target` `[B]` at their state as if it were the last."""
    final = carried + log_target
    mean_weight = _log_mean(final, size)
    log_weights = final - mean_weight - jnp.log(size)
    return Particles(log_weights, gathered + mean_weight, gathered, carried)


def systematic(key: Array, shares: Array) -> Array:
    """Indices `[K]`, index k for `K shares_k` times rounded up or down, by one uniform number."""
    size = len(shares)
    places = (jnp.arange(size) + jax.random.uniform(key, dtype=shares.dtype)) / size
    return jnp.minimum(jnp.searchsorted(jnp.cumsum(shares), places), size - 1)


def _log_mean(log_weights: Array, size: int) -> Array:
    """Logarithm of the mean weight of each group, for all of its samples: `[B]`."""
    total = jax.nn.logsumexp(log_weights.reshape(-1, size), axis=1)
    return jnp.repeat(total - jnp.log(size), size)
