"""The sampler of uniform noise on tokens."""

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.tokens import Replaced, categorical, coins
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


@checked(renewal="[0, 1]")
def replacement(process: Replaced, renewal: float = 0.0) -> Sampler:
    """`x_s` from `sum_v p(v | x_t) q(x_s | x_t, v)` for each token (Austin et al. 2021, Eq. 4).

    A token `v` is drawn from `p(x_i | x_t)`, and then `x_s^i`: with `a = alpha_t / alpha_s` from
    `q(x_s = j | x_t = i, v)`, which is proportional to

        (a 1[i = j] + (1 - a) / V) (alpha_s 1[j = v] + (1 - alpha_s) / V).

    Args:
        process: the process.
        renewal: the probability of `q(x_s | v)` instead, which forgets `x_t` (the Psi-sampler of
            Sahoo et al. 2026 with `1 - renewal`); 0 is the ancestral sampler.
    """

    def step(denoise: Denoise, state: tuple, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        v, shape = process.vocabulary, x_t.shape[1:]
        tokens = categorical(fold_in(keys, 0), denoise(x_t, t).x_0)
        lost_t, lost_s = process.schedule.lost(t), process.schedule.lost(s)
        kept = (1 - lost_t) / jnp.maximum(1 - lost_s, jnp.finfo(lost_s.dtype).tiny)
        near = lambda x, kept: (1 - kept) / v + kept * (x[..., None] == jnp.arange(v))  # noqa: E731
        p = near(x_t, kept) * near(tokens, 1 - lost_s)
        x_s = categorical(fold_in(keys, 1), jnp.log(p))
        if renewal:
            lost = coins(fold_in(keys, 2), lost_s, shape)
            noise = process.prior(fold_in(keys, 3), shape, s)
            anew = coins(fold_in(keys, 4), renewal, shape)
            x_s = jnp.where(anew, jnp.where(lost, noise, tokens), x_s)
        return x_s, state

    return Sampler(lambda x_T: (), step, stochastic=True)
