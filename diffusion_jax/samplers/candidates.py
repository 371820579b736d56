"""Candidates of whole texts, of which one is chosen by a second law of texts (EDLM)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.tokens import Masked, categorical
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Denoised, Sampler, Step


@checked(num="[1, inf)")
def resampled(
    process: Masked, sampler: Sampler, log_law: Callable[[Array], Array], num: int
) -> Sampler:
    """`sampler` with tokens that depend on each other (EDLM, Xu et al. 2025).

    In each step `num` texts are drawn, with independent tokens, by the denoiser, and one is chosen
    with a probability in proportion to `p(x) / prod_i p(x_i | x_t)`. With infinitely many its law
    is `p(x_0 | x_t)` of that second law: its energy is `-log p`. The sampler is given a denoiser
    that is certain of the text.

    Args:
        process: the process.
        sampler: a sampler that draws from the denoiser's law.
        log_law: texts `[B, L]` to `log p(x)` `[B]` up to a constant, such as of an autoregressive
            network.
        num: the number of texts.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        def chosen(x_t: Array, t: Array) -> Denoised:
            log_p, masked = denoise(x_t, t).x_0, x_t == process.mask

            def draw(number: Array) -> tuple[Array, Array]:
                tokens = categorical(fold_in(fold_in(keys, 0), number), log_p)
                each = jnp.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
                text = jnp.where(masked, tokens, x_t)
                return text, log_law(text) - jnp.sum(jnp.where(masked, each, 0), axis=-1)

            texts, weights = jax.lax.map(draw, jnp.arange(num))
            which = categorical(fold_in(keys, 1), weights.T)
            text = jnp.take_along_axis(texts, which[None, :, None], axis=0)[0]
            sure = text[..., None] == jnp.arange(process.vocabulary)
            return Denoised(jnp.where(sure, 0.0, -1e9))

        return sampler.step(chosen, state, x_t, t, s, fold_in(keys, 2))

    return Sampler(sampler.init, step, stochastic=True)
