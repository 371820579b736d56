"""Block diffusion: blocks of tokens one after the other, each by a sampler of tokens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffusion_jax.diffusion.tokens import Masked, num_blocks
from diffusion_jax.types import Array, Denoise, Denoised, Sampler, Step


class Parts(NamedTuple):
    """A network that is evaluated on one block, with what it keeps of earlier ones."""

    init: Callable[[int, int], Any]  # `(B, L) -> cache`
    # `(cache, tokens [B, M], place []) -> (logits [B, M, V], cache with these tokens)`
    evaluate: Callable[[Any, Array, Array], tuple[Array, Any]]


class Blocks(NamedTuple):
    """The state of `in_blocks`."""

    inner: Any  # state of the sampler in its block
    cache: Any
    evaluations: Array  # int32 `[B]`: those that the sample needed by itself


def block_times(times: Array, num: int) -> Array:
    """Times `[steps + 1]` from 1 to 0 for each of so many blocks: `[num steps + 1]`, from `num`.

    Whole numbers are the ends of blocks, and the rest is the time in a block.
    """
    after = jnp.arange(num)[::-1]
    return jnp.append((after[:, None] + times[:-1]).ravel(), times[-1])


def in_blocks(process: Masked, sampler: Sampler, block: int, parts: Parts | None = None) -> Sampler:
    """Draws blocks of tokens from left to right, each given those before it (Arriola et al. 2025).

    The times are those of `block_times`. A denoiser is told the time in the block. Tokens that are
    known in later blocks stay, but are not taken into account if the network does not see them.

    Args:
        process: the process.
        sampler: the sampler of a block.
        block: the number of tokens of a block.
        parts: evaluates the network with a cache on the tokens of a block only. It takes the place
            of the denoiser, so that there is no guidance. A block costs one evaluation more.
    """

    def init(x_T: Array) -> Blocks:
        num, length = x_T.shape
        num_blocks(length, block)
        cache = parts.init(num, length) if parts else ()
        return Blocks(sampler.init(x_T[:, :block]), cache, jnp.zeros(num, jnp.int32))

    def step(denoise: Denoise, state: Blocks, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        after = jnp.ceil(t) - 1  # blocks
        place = (x_t.shape[1] - block * (after + 1)).astype(jnp.int32)
        tokens = lax.dynamic_slice_in_dim(x_t, place, block, axis=1)
        needed = jnp.any(tokens == process.mask, axis=-1)

        def denoise_block(tokens: Array, t: Array) -> Denoised:
            if parts:
                logits, _ = parts.evaluate(state.cache, tokens, place)
                return Denoised(jax.nn.log_softmax(logits))
            whole = lax.dynamic_update_slice_in_dim(x_t, tokens, place, axis=1)
            log_p = denoise(whole, t).x_0
            return Denoised(lax.dynamic_slice_in_dim(log_p, place, block, axis=1))

        begins = t == after + 1
        pick = lambda new, old: jnp.where(begins, new, old)  # noqa: E731
        first = jax.tree.map(pick, sampler.init(tokens), state.inner)
        tokens, inner = sampler.step(denoise_block, first, tokens, t - after, s - after, keys)
        if hasattr(inner, "evaluations"):  # it may need none in a step
            needed &= inner.evaluations > first.evaluations
        x_s = lax.dynamic_update_slice_in_dim(x_t, tokens, place, axis=1)
        if not parts:
            return x_s, Blocks(inner, state.cache, state.evaluations + needed)
        kept = (s == after) & (after > 0)
        cache = lax.cond(
            kept, lambda: parts.evaluate(state.cache, tokens, place)[1], lambda: state.cache
        )
        return x_s, Blocks(inner, cache, state.evaluations + needed + kept)

    return Sampler(init, step, stochastic=True)
