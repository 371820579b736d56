"""Candidates of whole texts, of which one is chosen by a second law of texts (EDLM)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.tokens import Masked, categorical
from diffusion_jax.system.arguments import checked
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Denoise, Denoised, Sampler, Step


class Candidates(NamedTuple):
    """The state of the sampler."""

    inner: Any  # of the sampler that fills the masks
    x_t: Array  # `[B, L]`, for which the candidates were drawn
    keys: Array  # `[B]`, with which they were


@checked(num="[1, inf)")
def resampled(
    process: Masked, sampler: Sampler, log_law: Callable[[Array], Array], num: int
) -> Sampler:
    """`sampler` with tokens that depend on each other (EDLM, Xu et al. 2025).

    In each step `num` texts are drawn, with independent tokens, by the denoiser, and one is chosen
    with a probability in proportion to `p(x) / prod_i p(x_i | x_t)`. With infinitely many its law
    is `p(x_0 | x_t)` of that second law: its energy is `-log p`. The sampler is given a denoiser
    that is certain of the text.

    As long as no token of a sample changes its candidates are those of the step before, which makes
    no difference to the law: a sampler that does not evaluate the denoiser again is still exact.

    Args:
        process: the process.
        sampler: a sampler that draws from the denoiser's law, and chooses the masks that it fills
            without regard to it: not by entropy, margin or confidence.
        log_law: texts `[B, L]` to `log p(x)` `[B]` up to a constant, such as of an autoregressive
            network. It is evaluated `num` times where the denoiser is evaluated once.
        num: the number of texts.
    """

    def init(x_T: Array) -> Candidates:
        nothing = jnp.full_like(x_T, -1)  # so that the first step draws
        return Candidates(sampler.init(x_T), nothing, jax.random.split(make_key(0), len(x_T)))

    def step(
        denoise: Denoise, state: Candidates, x_t: Array, t: Array, s: Array, keys: Array
    ) -> Step:
        changed = jnp.any(x_t != state.x_t, axis=-1)
        drawn_by = jnp.where(changed, keys, state.keys)

        def chosen(x_t: Array, t: Array) -> Denoised:
            log_p, masked = denoise(x_t, t).x_0, x_t == process.mask

            def draw(number: Array) -> tuple[Array, Array]:
                tokens = categorical(fold_in(fold_in(drawn_by, 0), number), log_p)
                each = jnp.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
                text = jnp.where(masked, tokens, x_t)
                return text, log_law(text) - jnp.sum(jnp.where(masked, each, 0), axis=-1)

            texts, weights = jax.lax.map(draw, jnp.arange(num))
            which = categorical(fold_in(drawn_by, 1), weights.T)
            text = jnp.take_along_axis(texts, which[None, :, None], axis=0)[0]
            sure = text[..., None] == jnp.arange(process.vocabulary)
            return Denoised(jnp.where(sure, 0.0, -1e9))

        x_s, inner = sampler.step(chosen, state.inner, x_t, t, s, fold_in(keys, 2))
        return x_s, Candidates(inner, x_t, drawn_by)

    return Sampler(init, step, sampler.evaluations, stochastic=True)
