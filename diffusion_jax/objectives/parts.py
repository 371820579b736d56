"""Shared parts of losses: random times, conditioning, importance weights, learned uncertainty."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.conditioning import PARTS, drop
from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.time_sampling import Quantile, learned, stratified
from diffusion_jax.types import Array, Cond, Condition, Key, Params


@dataclasses.dataclass(frozen=True)
class Times:
    """Distribution of the times at which a loss is evaluated."""

    quantile: Quantile  # quantile function of the distribution
    batch_size: int  # size of the global batch, over which times are stratified
    # None, or `params -> logits` `[K]` of `time_sampling.learned`: the density of the times is
    # learned to minimise the variance of the loss. Its mean is unchanged, as each sample is divided
    # by its density.
    law: Callable[[Params], Array] | None = None

    def draw(self, params: Params, key: Key, index: Array) -> tuple[Array, Array | None]:
        """Times `[B]` of the samples at positions `index` `[B]` in the batch.

        Also the log density of these draws, if it is learned, for `importance`.
        """
        u, log_density = stratified(key, index, self.batch_size), None
        if self.law is not None:
            u, log_density = learned(self.law(params), u)
        return self.quantile(u), log_density


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Conditioning of a network in training."""

    condition: Condition | None = None  # computes further conditioning from `x`, if given
    dropout: float = 0.0  # probability of dropping all of a sample's conditioning
    # further probabilities for parts of the conditioning (`conditioning.PARTS`)
    part_dropout: Mapping[str, float] | None = None
    none: Cond | None = None  # what stands for dropped parts in place of zeros, `[1, ...]`

    def __call__(self, x: Array, cond: Cond, keys: Array) -> Cond:
        """The conditioning of items `x` `[B, ...]`, with one key per sample, `keys` `[B]`."""
        if self.condition is not None:
            own = fold_in(keys, len(PARTS))  # different from the keys of `drop`
            cond = {**cond, **self.condition(x, own)}
        return drop(cond, keys, self.dropout, self.part_dropout, self.none)


PLAIN = Conditioning()  # the batch's conditioning, never dropped


def uncertain(loss: Array, u: Array) -> Array:
    """`loss / exp(u) + u` `[B]`, minimal if `u` is the log of the loss (EDM2, Karras et al. 2024).

    Gives all noise levels the same weight, whatever their errors are.
    """
    return loss * jnp.exp(-u) + u


def pseudo_huber(square: Array, c: float) -> Array:
    """`sqrt(square + c^2) - c`, or `square` where `c` is 0.

    Sec. 3.3, Song & Dhariwal 2024, per dimension (their `c / sqrt(D)`).
    """
    return jnp.sqrt(square + c**2) - c if c else square


def importance(loss: Array, log_density: Array) -> Array:
    """`loss / q`, with a gradient that lowers its variance for the density `q`.

    The second moment of `loss / q` is the integral of `loss^2 / q`, with gradient
    `-E[(loss / q)^2 grad log q]`. It is divided by the mean absolute loss and so has the units of
    the loss, which keeps gradient clipping balanced between the two.
    """
    ratio = loss * jnp.exp(-jax.lax.stop_gradient(log_density))
    square = jax.lax.stop_gradient(ratio**2 / jnp.mean(jnp.abs(ratio)))
    return ratio - square * (log_density - jax.lax.stop_gradient(log_density))
