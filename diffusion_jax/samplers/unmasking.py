"""Samplers of the masked process: which masks are filled in a step, and with what.

The token and whether it is filled are two draws: one draw from V tokens and the mask would lose
tokens that are rarer than the resolution of its random numbers where few masks are filled. Tokens
that are not masked in `x_T` are known, and never change.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.tokens import (
    Masked,
    MaskedByToken,
    TokenSchedule,
    categorical,
    coins,
    found_share,
)
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


class Cache(NamedTuple):
    """The last prediction, which holds as long as no token changes."""

    log_p: Array  # `[B, L, V]`
    fresh: Array  # bool `[B]`
    evaluations: Array  # int32 `[B]`, those that the sample needed by itself


def ancestral(process: Masked | MaskedByToken, cached: bool = False) -> Sampler:
    """Each mask is filled with probability `(alpha_s - alpha_t) / (1 - alpha_t)`.

    Eq. 7, Sahoo et al. 2024. All that are left are filled in the step to `t = 0`, by a draw.

    Args:
        process: the process.
        cached: do not evaluate the denoiser again while no token of the batch has changed. It is
            exact for denoisers that do not depend on time, and for those only. Steps then cost less
            where they are many; the final state `Cache` counts the evaluations of each sample.
    """

    def init(x_T: Array) -> Cache | tuple[()]:
        if not cached:
            return ()
        num = len(x_T)
        log_p = jnp.zeros((*x_T.shape, process.vocabulary))
        return Cache(log_p, jnp.zeros(num, bool), jnp.zeros(num, jnp.int32))

    def step(denoise: Denoise, state: Cache, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        if cached:
            log_p = jax.lax.cond(
                jnp.all(state.fresh), lambda: state.log_p, lambda: denoise(x_t, t).x_0
            )
        else:
            log_p = denoise(x_t, t).x_0
        which, what = fold_in(keys, 0), fold_in(keys, 1)
        tokens = categorical(what, log_p)
        found = coins(which, process.found(tokens, t, s), x_t.shape[1:])
        filled = (x_t == process.mask) & found
        x_s = jnp.where(filled, tokens, x_t)
        if not cached:
            return x_s, state
        needed = state.evaluations + ~state.fresh
        return x_s, Cache(log_p, ~jnp.any(filled, axis=-1), needed)

    return Sampler(init, step, stochastic=True)


Order = Callable[[Array, Array, Array], Array]
"""`(log_p [B, L, V], tokens [B, L], keys [B]) -> [B, L]`: the masks with the most are filled."""


def random(log_p: Array, tokens: Array, keys: Array) -> Array:
    """Uniformly: one at a time, it is the ancestral sampler with infinitely many steps."""
    return jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))(keys)


def left_to_right(log_p: Array, tokens: Array, keys: Array) -> Array:
    """The first mask: for autoregressive networks."""
    return jnp.broadcast_to(-jnp.arange(tokens.shape[1]), tokens.shape)


def entropy(log_p: Array, tokens: Array, keys: Array) -> Array:
    """The mask whose token is the most certain, before it is drawn; exact one at a time."""
    return jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def margin(log_p: Array, tokens: Array, keys: Array) -> Array:
    """By the difference of the two largest probabilities (Kim et al. 2025); exact one at a time."""
    best, second = jnp.moveaxis(jax.lax.top_k(jnp.exp(log_p), 2)[0], -1, 0)
    return best - second


def confidence(log_p: Array, tokens: Array, keys: Array) -> Array:
    """By the probability of the token that was drawn (MaskGIT, Chang et al. 2022; LLaDA).

    Biased to frequent tokens, even one at a time and with the exact denoiser: what decides whether
    a draw is kept is its outcome.
    """
    return jnp.take_along_axis(log_p, tokens[..., None], -1)[..., 0]


ORDERS: dict[str, Order] = {
    order.__name__: order for order in (random, left_to_right, entropy, margin, confidence)
}
"""Orders by name."""


def by_count(process: Masked, order: Order = random) -> Sampler:
    """Fills masks in an order until the share `1 - alpha_s` of those in `x_T` is left, rounded.

    With as many steps as masks, evenly in `1 - alpha`, it is one at a time.
    """

    def init(x_T: Array) -> Array:
        return jnp.sum(x_T == process.mask, axis=-1)

    def step(denoise: Denoise, state: Array, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        log_p = jax.nn.log_softmax(denoise(x_t, t).x_0)  # orders compare tokens with each other
        tokens = categorical(fold_in(keys, 0), log_p)
        first = order(log_p, tokens, fold_in(keys, 1))
        # Ties are broken at random: all masks are equally certain in the beginning.
        coin = random(log_p, tokens, fold_in(keys, 2))
        masked = x_t == process.mask
        place = jnp.lexsort((coin, -first, ~masked), axis=-1)
        rank = jnp.argsort(place, axis=-1)
        left = jnp.round(state * process.schedule.lost(s)).astype(int)
        num = jnp.sum(masked, axis=-1) - left
        return jnp.where(masked & (rank < num[:, None]), tokens, x_t), state

    return Sampler(init, step, stochastic=True)


def first_hitting(process: Masked) -> Sampler:
    """One mask a step, at the time at which infinitely many steps would fill the next of them.

    First-hitting sampler of Zheng et al. 2025: with n masks that is where the share `1 - alpha_t`
    has fallen to `u^(1/n)` of that of the time before, and any of them is filled. So the law is
    that of `ancestral` with infinitely many steps. Only the number of steps counts: it takes as
    many as there are masks, and if there are fewer the last one fills all that are left. The
    denoiser is told the times at which masks are filled; the state is their share `[B]`.
    """

    def init(x_T: Array) -> Array:
        return jnp.ones(len(x_T))

    def step(denoise: Denoise, lost: Array, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        masked = x_t == process.mask
        u = jax.vmap(jax.random.uniform)(fold_in(keys, 0))
        lost *= u ** (1 / jnp.maximum(jnp.sum(masked, axis=-1), 1))
        log_p = denoise(x_t, process.schedule.time_at(lost)).x_0
        tokens = categorical(fold_in(keys, 1), log_p)
        first = jnp.where(masked, random(log_p, tokens, fold_in(keys, 2)), -1)
        chosen = jnp.arange(x_t.shape[1]) == jnp.argmax(first, axis=-1)[:, None]
        return jnp.where(masked & (chosen | (s == 0)), tokens, x_t), lost

    return Sampler(init, step, stochastic=True)


@checked(strength="[0, 1]", rule=("cap", "rescale"), low="[0, high]", high="(0, 1]")
def remasking(
    process: Masked,
    strength: float,
    rule: str = "cap",
    low: float = 0.0,
    high: float = 1.0,
) -> Sampler:
    """Tokens that were filled may be masked again, and so corrected (ReMDM, Wang et al. 2025).

    That is done with the probability `sigma` at times in `[low, high]`. Their rule "loop" is "cap"
    with both at the time at which a grid stands still (`time_grids.held`).

    Args:
        process: the process.
        strength: the largest `sigma` for the rule "cap", the share of its maximum for "rescale".
        rule: the rule.
        low: the least time at which tokens are masked again.
        high: the largest.
    """

    def init(x_T: Array) -> Array:
        return x_T != process.mask

    def step(denoise: Denoise, known: Array, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        most = most_remasked(process.schedule, t, s)
        sigma = jnp.minimum(strength, most) if rule == "cap" else strength * most
        sigma = jnp.where((t >= low) & (t <= high), sigma, 0.0)
        log_p, shape = denoise(x_t, t).x_0, x_t.shape[1:]
        fill = coins(fold_in(keys, 0), refilled(process.schedule, t, s, sigma), shape)
        filled = jnp.where(fill, categorical(fold_in(keys, 1), log_p), x_t)
        again = ~known & coins(fold_in(keys, 2), sigma, shape)
        return jnp.where(x_t == process.mask, filled, jnp.where(again, process.mask, x_t)), known

    return Sampler(init, step, stochastic=True)


def most_remasked(schedule: TokenSchedule, t: Array, s: Array) -> Array:
    """`min(1, (1 - alpha_s) / alpha_t)`, the largest `sigma` (Wang et al. 2025).

    Then all masks are filled: all of `x_s` is drawn anew.
    """
    kept = 1 - schedule.lost(t)
    return jnp.minimum(1.0, schedule.lost(s) / jnp.maximum(kept, jnp.finfo(kept.dtype).tiny))


def refilled(schedule: TokenSchedule, t: Array, s: Array, sigma: Array) -> Array:
    """`(alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t)`: the share of the masks that is filled.

    So the law at each time is that of the process, although others are masked again.
    """
    lost = schedule.lost(t)
    return found_share(schedule, t, s) + sigma * (1 - lost) / lost
