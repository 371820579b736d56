"""Parts that losses have in common: random times, conditioning, weights, learned uncertainty."""

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
    """Which times a loss is taken at."""

    quantile: Quantile  # of their law
    batch_size: int  # of the global batch, over which they are stratified
    # None, or `params -> logits` `[K]` of `time_sampling.learned`: how often each time is drawn is
    # learned too, such that the loss has least variance. Its mean stays what it is, as each sample
    # is divided by the density with which it was drawn.
    law: Callable[[Params], Array] | None = None

    def draw(self, params: Params, key: Key, index: Array) -> tuple[Array, Array | None]:
        """Times `[B]` of the samples at the places `index` `[B]` in the batch.

        Also the log density with which they were drawn, if it is learned, for `importance`.
        """
        u, log_density = stratified(key, index, self.batch_size), None
        if self.law is not None:
            u, log_density = learned(self.law(params), u)
        return self.quantile(u), log_density


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What a network is told in training."""

    condition: Condition | None = None  # None, or what makes further conditioning from `x`
    dropout: float = 0.0  # probability with which all of a sample's conditioning is switched off
    # further probabilities by part of the conditioning (`conditioning.PARTS`)
    part_dropout: Mapping[str, float] | None = None

    def __call__(self, x: Array, cond: Cond, keys: Array) -> Cond:
        """The conditioning of items `x` `[B, ...]`, by one key for each of `keys` `[B]`."""
        if self.condition is not None:
            own = fold_in(keys, len(PARTS))  # not `drop`'s
            cond = {**cond, **self.condition(x, own)}
        return drop(cond, keys, self.dropout, self.part_dropout)


PLAIN = Conditioning()  # what there is in the batch, never off


def uncertain(loss: Array, u: Array) -> Array:
    """`loss / exp(u) + u` `[B]`, least where `u` is the log of the loss (EDM2, Karras et al. 2024).

    Equal weight for all noise levels, whatever their errors are.
    """
    return loss * jnp.exp(-u) + u


def pseudo_huber(square: Array, c: float) -> Array:
    """`sqrt(square + c^2) - c`, or `square` where `c` is 0.

    Sec. 3.3, Song & Dhariwal 2024; per dimension: their `c / sqrt(D)`.
    """
    return jnp.sqrt(square + c**2) - c if c else square


def importance(loss: Array, log_density: Array) -> Array:
    """`loss / q`, with the gradient of its variance for the law `q` of which `log_density` is.

    The second moment of `loss / q` is the integral of `loss^2 / q`, with the gradient
    `-E[(loss / q)^2 grad log q]`. Divided by the mean size of the loss it has the loss' own units,
    so that clipping the whole gradient does not take one for the other.
    """
    ratio = loss * jnp.exp(-jax.lax.stop_gradient(log_density))
    square = jax.lax.stop_gradient(ratio**2 / jnp.mean(jnp.abs(ratio)))
    return ratio - square * (log_density - jax.lax.stop_gradient(log_density))
