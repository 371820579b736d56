"""Processes of tokens: masking, and replacement by uniform noise.

A token of `x_0` int32 `[B, L]`, of a vocabulary of V, is kept up to time `t` with the probability
`alpha_t`, each independently of the others. Otherwise it is the mask, which is number V, or a token
drawn uniformly from the vocabulary, which may be itself. A schedule is the probability
`lost(t) = 1 - alpha_t`, from exactly 0 at `t = 0` to exactly 1 at `t = 1`.

A denoiser's `x_0` is `log p(x_i | x_t)` `[B, L, V]`, up to a constant for each token: laws that
guidance mixes linearly.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import Network, per_sample
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


class TokenSchedule(Protocol):
    """A schedule of tokens; all functions are elementwise."""

    def lost(self, t: Array) -> Array:
        """`1 - alpha_t`, rising from 0 to 1."""

    def time_at(self, lost: Array) -> Array:
        """The inverse."""


@dataclasses.dataclass(frozen=True)
@checked(power="(0, inf)")
class Polynomial:
    """`1 - alpha_t = t^power`; linear, as of MDLM and LLaDA, for power 1 (Shi et al. 2024)."""

    power: float = 1.0

    def lost(self, t: Array) -> Array:
        return t**self.power

    def time_at(self, lost: Array) -> Array:
        return lost ** (1 / self.power)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """`alpha_t = 1 - sin(pi t / 2)`: MD4's cosine, few tokens are lost or found near `t = 1`."""

    def lost(self, t: Array) -> Array:
        return jnp.sin(jnp.pi / 2 * t)

    def time_at(self, lost: Array) -> Array:
        return 2 / jnp.pi * jnp.arcsin(lost)


def found_share(schedule: TokenSchedule, t: Array, s: Array) -> Array:
    """`(alpha_s - alpha_t) / (1 - alpha_t)`: of what is lost at `t`, the share found at `s`."""
    lost = schedule.lost(t)
    return (lost - schedule.lost(s)) / jnp.maximum(lost, jnp.finfo(lost.dtype).tiny)


def loss_rate(schedule: TokenSchedule, t: Array) -> Array:
    """`-alpha'_t / (1 - alpha_t)`, the limit of `found_share` per time; finite at `t = 0`."""
    lost, slope = jax.jvp(schedule.lost, (t,), (jnp.ones_like(t),))
    return slope / jnp.maximum(lost, jnp.finfo(lost.dtype).tiny)


def num_blocks(length: int, block: int) -> int:
    """How many blocks of so many tokens there are in a text.

    Raises:
        ValueError: the last block would be shorter.
    """
    if not 1 <= block <= length or length % block:
        raise ValueError(f"block={block} must divide the length of a text, {length}")
    return length // block


def categorical(keys: Array, log_p: Array) -> Array:
    """Tokens int32 `[B, ...]` from `log_p` `[B, ..., V]`, each sample from its own of `keys` `[B]`.

    The library's default draws uniform numbers of 23 bits: tokens rarer than 2^-23 never come.
    """
    draw = lambda key, each: jax.random.categorical(key, each, mode="high")  # noqa: E731
    return jax.vmap(draw)(keys, log_p)


def coins(keys: Array, p: Array | float, shape: tuple[int, ...]) -> Array:
    """Whether a uniform number is below `p`, bool `[B, *shape]`, with one of `keys` `[B]` each."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys) < p


class _Masks:
    """What processes have in common that hide tokens behind a mask, which is number V."""

    vocabulary: int  # number of tokens

    @property
    def mask(self) -> int:
        return self.vocabulary

    def lost(self, tokens: Array, t: Array) -> Array:
        """The probability that `tokens` `[B, L]` are masked at `t` `[B]`: `[B, L]` or `[B, 1]`."""
        raise NotImplementedError

    def prior(self, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
        """Masks alone."""
        return jnp.full((len(keys), *shape), self.mask, jnp.int32)

    def placed(self, noise: Array, t: Array, cond: Cond) -> Array:
        """The noise."""
        return noise

    def corrupt(self, x_0: Array, t: Array, keys: Array) -> Array:
        return jnp.where(coins(keys, self.lost(x_0, t), x_0.shape[1:]), self.mask, x_0)

    def denoiser(self, network: Network) -> Denoiser:
        """The denoiser of a network `(x_t, t, cond) -> [B, L, V]`, whose outputs are logits.

        Its laws are normalised. What it predicts of tokens that are not masked is without meaning:
        they are known.
        """

        def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
            return Denoised(jax.nn.log_softmax(network(x_t, t, cond)))

        return denoise


@dataclasses.dataclass(frozen=True)
@checked(vocabulary="[2, inf)")
class Masked(_Masks):
    """`x_t^i` is `x_0^i` with probability `alpha_t`, else the mask: a `Process`.

    Austin et al. 2021 (absorbing), Sahoo et al. 2024 (MDLM), Shi et al. 2024 (MD4).
    """

    schedule: TokenSchedule
    vocabulary: int

    def lost(self, tokens: Array, t: Array) -> Array:
        return per_sample(self.schedule.lost(t), tokens)

    def found(self, tokens: Array, t: Array, s: Array) -> Array:
        """The probability that a mask at `t` which is one of `tokens` is none at `s`."""
        return found_share(self.schedule, t, s)


@dataclasses.dataclass(frozen=True)
class MaskedByToken(_Masks):
    """As `Masked`, but token v is lost with the probability `(1 - alpha_t)^w_v`: a `Process`.

    GenMD4 (Shi et al. 2024), where `1 - alpha_t = t`, and whose powers w are learned. That a token
    is masked tells something about it, so that its law depends on the time, which the network must
    be told.
    """

    schedule: TokenSchedule
    powers: Array  # `[V]`, above 0

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        return len(self.powers)

    def lost(self, tokens: Array, t: Array) -> Array:
        return per_sample(self.schedule.lost(t), tokens) ** self.powers[tokens]

    def found(self, tokens: Array, t: Array, s: Array) -> Array:
        """As of `Masked`: `1 - (lost_s / lost_t)^w`, which may be small."""
        log_left = jnp.log1p(-found_share(self.schedule, t, s))
        return -jnp.expm1(self.powers[tokens] * log_left)


@dataclasses.dataclass(frozen=True)
@checked(vocabulary="[2, inf)")
class Replaced:
    """`x_t^i` is `x_0^i` with probability `alpha_t`, else any token: a `Process` (uniform noise).

    Its bound (Schiff et al. 2025, UDLM) is minimised by the prediction of a token from all others,
    `p(x_i | x_t without x_t^i)`, and not by `p(x_i | x_t)`: these are two types of prediction,

        log p(x_i | x_t) = log p(x_i | x_t without x_t^i) + log q(x_t^i | x_i) - constant.
    """

    schedule: TokenSchedule
    vocabulary: int
    leave_one_out: bool = True  # whether the network predicts tokens from the others

    def prior(self, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
        """Tokens drawn uniformly."""
        draw = lambda key: jax.random.randint(key, shape, 0, self.vocabulary)  # noqa: E731
        return jax.vmap(draw)(keys)

    def placed(self, noise: Array, t: Array, cond: Cond) -> Array:
        """The noise."""
        return noise

    def corrupt(self, x_0: Array, t: Array, keys: Array) -> Array:
        lost = per_sample(self.schedule.lost(t), x_0)
        which, what = jax.vmap(jax.random.split, out_axes=1)(keys)
        return jnp.where(coins(which, lost, x_0.shape[1:]), self.prior(what, x_0.shape[1:], t), x_0)

    def denoiser(self, network: Network) -> Denoiser:
        """The denoiser of a network `(x_t, t, cond) -> [B, L, V]` of either type of prediction."""

        def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
            logits = network(x_t, t, cond)
            if self.leave_one_out:
                logits += self.log_likelihood(x_t, t)
            return Denoised(jax.nn.log_softmax(logits))

        return denoise

    def log_likelihood(self, x_t: Array, t: Array) -> Array:
        """`log q(x_t^i | x_i)` of all `x_i`, `[B, L, V]`, at times `[B]` above 0."""
        lost = per_sample(self.schedule.lost(t), x_t)[..., None]
        same = x_t[..., None] == jnp.arange(self.vocabulary)
        return jnp.log(lost / self.vocabulary + jnp.where(same, 1 - lost, 0))

    def from_others(self, x_t: Array, log_p: Array, t: Array) -> Array:
        """`log p(x_i | x_t without x_t^i)` from `log p(x_i | x_t)`, both `[B, L, V]`."""
        return jax.nn.log_softmax(log_p - self.log_likelihood(x_t, t))


Attribute = Callable[[Array], Array]
"""`p [B, L, V] -> [B]`: of texts, given as one-hot vectors, an attribute `m(x)`; of laws `p` its
mean over texts of independent tokens, or another extension of it that can be differentiated."""

Proposal = Callable[[Array, Array, Array], Array]
"""`(x_t [B, L], t [B], log p [B, L, V]) -> log q [B, L, V]`, up to a constant for each token."""


def laws(x_t: Array, log_p: Array) -> Array:
    """Laws of the tokens `[B, L, V]`: of masks by `log_p`; the others are known, and one-hot.

    Args:
        x_t: tokens `[B, L]`; number V is the mask.
        log_p: `[B, L, V]`, up to a constant for each token.
    """
    vocabulary = log_p.shape[-1]
    known = (x_t != vocabulary)[..., None]
    one_hot = jax.nn.one_hot(x_t, vocabulary, dtype=log_p.dtype)
    return jnp.where(known, one_hot, jax.nn.softmax(log_p))
