"""Weighted particles of the masked process: samples of a law that is tilted by a reward."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.tokens import Attribute, Masked, Proposal, categorical, laws
from diffusion_jax.samplers.particles import Particles, evenly_weighted, resampled, weighted
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Denoised, Sampler, Step


class Steered(NamedTuple):
    """The state of the sampler."""

    particles: Particles  # with the final weights, which are part of the result
    inner: Any  # of the sampler that is steered


@checked(size="[1, inf)", resample_below="[0, 1]")
def steered(
    process: Masked,
    sampler: Sampler,
    reward: Attribute,
    size: int,
    proposal: Proposal | None = None,
    drawn: bool = False,
    resample_below: float = 0.5,
) -> Sampler:
    """`size` consecutive samples are weighted particles of `p(x) exp(reward(x))`.

    Feynman-Kac steering (Singhal et al. 2025) of the chain of `sampler`, whose masks may be filled
    from a proposal `q` instead of `p`: weights are multiplied by `p / q` of the tokens filled, and

        potential(x_t) = reward(q) - KL(q | p)

    tells before the end which particles are worth going on with, where tokens that are known are
    one-hot in both. It is a lower bound of `log E[exp(reward)]` under independent tokens of law `p`
    (Gibbs and Bogoliubov) if the reward of laws is the mean over their texts, and without a
    proposal the reward of `p`. Of a text it is the reward, so that with their number the weighted
    particles tend to the tilted law of the chain, whatever proposal and potential are.

    Args:
        process: the process.
        sampler: a sampler of the process that chooses masks without regard to the tokens drawn for
            them (not by confidence), without a cache.
        reward: the reward, an attribute of texts.
        size: particles in a group; the batch size is a multiple of it.
        proposal: None is `p`.
        drawn: the reward of a text drawn from `q` in place of that of `q`, for rewards of texts
            alone; without the divergence.
        resample_below: a group is resampled where its effective sample size is below this share of
            `size`; 0 never resamples.

    Raises:
        ValueError: `size` does not divide the batch size.
    """

    def init(x_T: Array) -> Steered:
        return Steered(evenly_weighted(x_T, size, jnp.zeros(()).dtype), sampler.init(x_T))

    def step(denoise: Denoise, state: Steered, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        log_p = log_q = jax.nn.log_softmax(denoise(x_t, t).x_0)
        if proposal:
            log_q = jax.nn.log_softmax(proposal(x_t, jnp.full(len(x_t), t), log_p))
        q = laws(x_t, log_q)
        if drawn:
            masked = x_t == process.mask
            text = jnp.where(masked, categorical(fold_in(keys, 2), log_q), x_t)
            potential = reward(laws(text, log_q))
        else:
            masked = (x_t == process.mask)[..., None]
            divergence = jnp.where(masked & (q > 0), q * (log_q - log_p), 0)
            potential = reward(q) - jnp.sum(divergence, axis=(1, 2))

        index, log_weights, gathered = resampled(
            state.particles, potential, size, resample_below, fold_in(keys, 0)
        )
        x_t, log_p, log_q, potential, inner = jax.tree.map(
            lambda a: a[index], (x_t, log_p, log_q, potential, state.inner)
        )
        x_s, inner = sampler.step(lambda *_: Denoised(log_q), inner, x_t, t, s, fold_in(keys, 1))
        filled = (x_t == process.mask) & (x_s != process.mask)
        token = jnp.where(filled, x_s, 0)[..., None]
        ratio = jnp.take_along_axis(log_p - log_q, token, axis=-1)[..., 0]
        carried = log_weights - potential + jnp.sum(jnp.where(filled, ratio, 0), axis=1)
        particles = weighted(carried, reward(laws(x_s, log_q)), gathered, size)
        return x_s, Steered(particles, inner)

    return Sampler(init, step, stochastic=True)
