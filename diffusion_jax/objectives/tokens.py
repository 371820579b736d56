"""Variational bounds of tokens, in nats per token: objectives of masking and of uniform noise.

An estimator of the bound is a distribution of noisy data with a weight: the mean of the weighted
cross-entropy of what is masked is the bound, the same for all of them and for every schedule, as
it depends on the number of masks alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.tokens import Masked, Replaced, found_share, loss_rate, num_blocks
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoiser


class Draw(NamedTuple):
    """Noisy data and their part in the bound."""

    x_t: Array  # `[B, L]`
    t: Array  # `[B]`
    weight: Array  # `[B]` of the summed cross-entropy of the masks


Estimator = Callable[[Masked, Array, Array, Array], Draw]
"""`(process, x_0 [B, L], u [B] in [0, 1), keys [B]) -> Draw`."""


def in_time(process: Masked, x_0: Array, u: Array, keys: Array) -> Draw:
    """At a uniform time, with the weight `-alpha' / (1 - alpha)` (Eq. 5, Shi et al. 2024)."""
    t = 1 - u  # above 0
    return Draw(process.corrupt(x_0, t, keys), t, loss_rate(process.schedule, t))


def by_count(process: Masked, x_0: Array, u: Array, keys: Array) -> Draw:
    """With exactly k masks, k uniform on 1 .. L, and the weight L / k (Eq. 4, Nie et al. 2025).

    The estimate has less variance than `in_time`, as the number of masks is no longer random.
    """
    length = x_0.shape[1]
    num = jnp.floor(u * length).astype(jnp.int32) + 1
    order = jax.vmap(lambda key: jax.random.permutation(key, length))(keys)
    x_t = jnp.where(order < num[:, None], process.mask, x_0)
    return Draw(x_t, process.schedule.time_at(num / length), length / num)


@checked(num_steps="[1, inf)")
def in_steps(num_steps: int) -> Estimator:
    """The bound of the ancestral sampler with so many steps, evenly in time: never less.

    Eq. 4, Sahoo et al. 2024.
    """

    def draw(process: Masked, x_0: Array, u: Array, keys: Array) -> Draw:
        i = jnp.floor(u * num_steps) + 1
        t, s = i / num_steps, (i - 1) / num_steps
        weight = num_steps * found_share(process.schedule, t, s)
        return Draw(process.corrupt(x_0, t, keys), t, weight)

    return draw


def masked_bound(
    process: Masked,
    estimator: Estimator,
    denoiser: Denoiser,
    x_0: Array,
    cond: Cond,
    u: Array,
    keys: Array,
) -> tuple[Array, Array]:
    """An estimate of the bound `[B]` in nats per token, and the times `[B]`.

    The denoiser's laws must be normalised, as those of the process are; guided ones are not.
    """
    draw = estimator(process, x_0, u, keys)
    total = jnp.sum(_surprise(process, denoiser, draw.x_t, draw.t, cond, x_0), axis=-1)
    return draw.weight * total / x_0.shape[1], draw.t


def block_bound(
    process: Masked,
    estimator: Estimator,
    block: int,
    denoiser: Denoiser,
    x_0: Array,
    cond: Cond,
    u: Array,
    keys: Array,
) -> tuple[Array, Array]:
    """As `masked_bound`, of block diffusion: `-log p(x^b | x^1 .. x^(b-1))` summed over blocks.

    Arriola et al. 2025. Each block of `block` tokens has a draw of its own, at times that are
    spread evenly over the blocks of a text. The denoiser, which predicts a token from its own block
    of `x_t` and from the earlier ones of `cond["clean"]`, is told the mean of the times: it must
    not depend on it.
    """
    num, length = x_0.shape
    blocks = num_blocks(length, block)
    u = jnp.mod(u[:, None] + jnp.arange(blocks) / blocks, 1).ravel()
    keys = jax.vmap(lambda key: jax.random.split(key, blocks))(keys).ravel()
    draw = estimator(process, x_0.reshape(-1, block), u, keys)
    t = jnp.mean(draw.t.reshape(num, blocks), axis=-1)
    x_t, cond = draw.x_t.reshape(num, length), {**cond, "clean": x_0}
    surprise = _surprise(process, denoiser, x_t, t, cond, x_0)
    totals = draw.weight * jnp.sum(surprise.reshape(-1, block), axis=-1)
    return jnp.sum(totals.reshape(num, blocks), axis=-1) / length, t


def _surprise(
    process: Masked, denoiser: Denoiser, x_t: Array, t: Array, cond: Cond, x_0: Array
) -> Array:
    """`-log p(x_0^i | x_t)` of what is masked, else 0: `[B, L]`."""
    log_p = denoiser(x_t, t, cond).x_0
    surprise = -jnp.take_along_axis(log_p, x_0[..., None], -1)[..., 0]
    return jnp.where(x_t == process.mask, surprise, 0)


def replaced_bound(
    process: Replaced, denoiser: Denoiser, x_0: Array, cond: Cond, u: Array, keys: Array
) -> tuple[Array, Array]:
    """The bound of uniform noise at a uniform time `[B]`, in nats per token, and the times `[B]`.

    Eq. 17, Schiff et al. 2025: with `z = x_t^i`, and the laws of a token at time `t` by the truth
    and by the prediction from all others, `q_j = alpha 1[j = x_0^i] + (1 - alpha) / V` and
    `p_j = alpha p(x_i = j | x_t without z) + (1 - alpha) / V`,

        -alpha' / (V alpha) (1 / p_z - 1 / q_z + sum_j q_j / q_z log(q_j p_z / (p_j q_z))).
    """
    t, v = 1 - u, process.vocabulary
    x_t = process.corrupt(x_0, t, keys)
    log_p = process.from_others(x_t, denoiser(x_t, t, cond).x_0, t)
    lost = per_sample(process.schedule.lost(t), x_0)[..., None]
    own = x_0[..., None] == jnp.arange(v)
    q = lost / v + jnp.where(own, 1 - lost, 0)
    p = lost / v + (1 - lost) * jnp.exp(log_p)
    q_z, p_z = (jnp.take_along_axis(a, x_t[..., None], -1) for a in (q, p))
    log_ratio = jnp.log(q * p_z / (p * q_z))
    each = (1 / p_z - 1 / q_z)[..., 0] + jnp.sum(q / q_z * log_ratio, axis=-1)
    _, slope = jax.jvp(process.schedule.lost, (t,), (jnp.ones_like(t),))
    # At t = 1 nothing is kept, and each is 0 to second order.
    kept = jnp.maximum(1 - process.schedule.lost(t), jnp.finfo(t.dtype).eps)
    return slope / (v * kept) * jnp.mean(each, axis=-1), t
