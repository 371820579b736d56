"""The bound of masking with a schedule for each token, which is learned (GenMD4)."""

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.tokens import MaskedByToken, loss_rate
from diffusion_jax.types import Array, Cond, Denoiser


def bound_at(
    process: MaskedByToken, denoiser: Denoiser, x_0: Array, x_t: Array, t: Array, cond: Cond
) -> Array:
    """The bound at times `[B]` above 0, for noisy texts `[B, L]`: `[B]` in nats per token.

    Shi et al. 2024, with `1 - alpha_v = (1 - alpha)^w_v`: the sum over masks, with the prediction
    p, which is normalised, of

        -alpha' / (1 - alpha) (w_x (-log p_x - 1) + sum_v w_v p_v).
    """
    log_p = denoiser(x_t, t, cond).x_0
    surprise = -jnp.take_along_axis(log_p, x_0[..., None], -1)[..., 0]
    each = process.powers[x_0] * (surprise - 1) + jnp.exp(log_p) @ process.powers
    total = jnp.mean(jnp.where(x_t == process.mask, each, 0), axis=-1)
    return loss_rate(process.schedule, t) * total


def bound_by_token(
    process: MaskedByToken, denoiser: Denoiser, x_0: Array, cond: Cond, u: Array, keys: Array
) -> tuple[Array, Array]:
    """The bound in nats per token, the mean of two draws of noise, and uniform times: `[B]` each.

    Its gradient is also with respect to the powers that the noise is drawn with: by leave-one-out
    over the two draws (RLOO, Kool et al. 2019).
    """
    t = 1 - u  # above 0
    first, second = (process.corrupt(x_0, t, fold_in(keys, i)) for i in (0, 1))
    a, b = (bound_at(process, denoiser, x_0, x_t, t, cond) for x_t in (first, second))
    log_ratio = _log_probability(process, x_0, first, t) - _log_probability(process, x_0, second, t)
    # Its value is 0, and its gradient that of the logarithms.
    score = log_ratio - jax.lax.stop_gradient(log_ratio)
    return (a + b) / 2 + jax.lax.stop_gradient(a - b) / 2 * score, t


def _log_probability(process: MaskedByToken, x_0: Array, x_t: Array, t: Array) -> Array:
    """`log q(x_t | x_0)` `[B]`."""
    masked = x_t == process.mask
    log_lost = process.powers[x_0] * per_sample(jnp.log(process.schedule.lost(t)), x_0)
    # Where there is a mask the other branch must have no infinite gradient.
    log_kept = jnp.log1p(-jnp.exp(jnp.where(masked, -1.0, log_lost)))
    return jnp.sum(jnp.where(masked, log_lost, log_kept), axis=-1)
