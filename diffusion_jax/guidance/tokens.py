"""Guidance of tokens: by a classifier of noisy tokens, and by a field on an attribute of the text.

Classifier-free guidance, its compositions and autoguidance are those of `extrapolation`: as `x_0`
is `log p`, a scale `g` gives each token the law `p(v | x_t, c)^g p(v | x_t)^(1 - g)`.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.tokens import Attribute, Proposal, laws
from diffusion_jax.guidance.scales import Scale, at, is_off
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser

LogProb = Callable[[Array, Array, Cond], Array]
"""`(one-hot x_t [B, L, V + 1], t [B], cond) -> [B]`: log p(y | x_t); the last symbol is the mask,
which uniform noise never has."""

Laws = Callable[[Array, Array], Array]
"""`(x_t [B, L], log p [B, L, V]) -> p [B, L, V]`: the laws of tokens that an attribute is given, as
by `diffusion.tokens.laws`."""


@checked(scale="[0, inf)", at_once="[1, inf)")
def by_classifier(
    denoise: Denoiser,
    log_prob: LogProb,
    scale: Scale,
    first_order: bool = False,
    at_once: int = 64,
) -> Denoiser:
    """`log p(x_i = v | x_t) + scale log p(y | x_t with x_t^i = v)` (D-CBG, Schiff et al. 2025).

    For masks, with the exact classifier of masked texts and scale 1, it is Bayes' rule: the exact
    denoiser given y. For uniform noise it is not, as the classifier takes v for a noisy token. It
    costs `L V` evaluations of the classifier. To first order it costs one, and its gradient:
    `log p(y | x_t with x_t^i = v)` is replaced by the entry for v of its gradient with respect to
    the one-hot vector of `x_t^i`, which is the same up to a constant where it is linear in it.

    Scale 0 is off and costs nothing.

    Args:
        denoise: the denoiser.
        log_prob: the classifier.
        scale: the exponent of its probability.
        first_order: whether it is linearised.
        at_once: number of replaced tokens that are evaluated at the same time.
    """
    if is_off((scale, 0)):
        return denoise

    def guided(x_t: Array, t: Array, cond: Cond) -> Denoised:
        strength, own = at(scale, t), denoise(x_t, t, cond)
        length, vocabulary = own.x_0.shape[1:]

        def of(x: Array) -> Array:
            return log_prob(jax.nn.one_hot(x, vocabulary + 1, dtype=own.x_0.dtype), t, cond)

        def exact() -> Array:
            def replaced(number: Array) -> Array:
                i, v = jnp.divmod(number, vocabulary)
                return of(x_t.at[:, i].set(v.astype(x_t.dtype)))

            numbers = jnp.arange(length * vocabulary)
            found = jax.lax.map(replaced, numbers, batch_size=at_once)  # [L V, B]
            return found.T.reshape(own.x_0.shape)

        def linear() -> Array:
            one_hot = jax.nn.one_hot(x_t, vocabulary + 1, dtype=own.x_0.dtype)
            gradient = jax.grad(lambda x: jnp.sum(log_prob(x, t, cond)))(one_hot)
            return gradient[..., :vocabulary]

        def pushed() -> Array:
            change = linear() if first_order else exact()
            return own.x_0 + per_sample(strength, own.x_0) * change

        x_0 = jax.lax.cond(jnp.any(strength != 0), pushed, lambda: own.x_0)
        return own._replace(x_0=x_0)

    return guided


def all_uncertain(x_t: Array, log_p: Array) -> Array:
    """The laws of tokens any of which may have been replaced: `Laws` of uniform noise."""
    return jax.nn.softmax(log_p)


def from_left(block: int) -> Laws:
    """The `Laws` of networks that fill blocks of `block` tokens from left to right.

    They predict the masks of the first block that has any. Of later ones nothing is known, and
    their laws are 0: a word that reaches there is not expected yet.
    """

    def of(x_t: Array, log_p: Array) -> Array:
        masked = x_t == log_p.shape[-1]
        now = jnp.argmax(masked, axis=1)[:, None] // block
        later = masked & (jnp.arange(x_t.shape[1]) // block > now)
        return jnp.where(later[..., None], 0, laws(x_t, log_p))

    return of


def of_class(log_prob: LogProb) -> Attribute:
    """`m(x) = log p(y | x)` of a classifier, at `t = 0`: a learned attribute.

    Laws of tokens are soft inputs, and what they lack of 1 is the mask's share.
    """

    def attribute(p: Array) -> Array:
        rest = 1 - jnp.sum(p, axis=-1, keepdims=True)
        signal = jnp.concatenate([p, rest], axis=-1)
        return log_prob(signal, jnp.zeros(len(p), p.dtype), {})

    return attribute


def of_tokens(values: Array) -> Attribute:
    """`m(x) = sum_i values[i, x_i]`, for `values` `[L, V]`, or `[V]` for all positions."""
    return lambda p: jnp.sum(p * values, axis=(1, 2))


def of_words(words: Sequence[Sequence[int]], positions: Array | None = None) -> Attribute:
    """The number of places at which one of the words stands: `sum_i sum_w prod_j p_{i + j}(w_j)`.

    Args:
        words: tokens of each word; words longer than the text are not in it.
        positions: weights `[L]` of the places where words begin; None: 1.
    """
    if not words or not all(len(word) for word in words):
        raise ValueError(f"words={words!r} must be one or more, of one or more tokens each")

    def attribute(p: Array) -> Array:
        length, total = p.shape[1], jnp.zeros(len(p), p.dtype)
        weights = jnp.ones(length, p.dtype) if positions is None else positions
        for word in words:
            num = max(length - len(word) + 1, 0)
            each = math.prod(p[:, j : j + num, token] for j, token in enumerate(word))
            total += each @ weights[:num]
        return total

    return attribute


def field(attribute: Attribute, scale: Scale, laws_of: Laws = laws) -> Proposal:
    """The naive field: `log q(x_i = v) = log p(x_i = v | x_t) + scale dm/dp_i(v)`.

    The derivative is the mean of `m` given `x_i = v`, up to a constant for each token, if the
    other tokens are independent of it (mean field): for tokens `m(v)`, for a word the probability
    that the rest of it stands where it must. The law that one would want, `p(x) exp(h m(x))`, has
    instead `log E[exp(h m) | x_t, x_i = v]`, which `by_classifier` gives exactly where it is known;
    `samplers/steering.py` weighs the samples of the naive field.

    Args:
        attribute: the attribute.
        scale: `h`.
        laws_of: the laws of tokens that it is given.
    """

    def push(x_t: Array, t: Array, log_p: Array) -> Array:
        gradient = jax.grad(lambda p: jnp.sum(attribute(p)))(laws_of(x_t, log_p))
        return log_p + per_sample(at(scale, t), log_p) * gradient

    return push


def magnet(denoise: Denoiser, attribute: Attribute, scale: Scale, laws_of: Laws = laws) -> Denoiser:
    """The denoiser in the naive `field`; scale 0 is off and costs nothing."""
    if is_off((scale, 0)):
        return denoise
    push = field(attribute, scale, laws_of)

    def guided(x_t: Array, t: Array, cond: Cond) -> Denoised:
        own = denoise(x_t, t, cond)
        return own._replace(x_0=push(x_t, t, own.x_0))

    return guided
