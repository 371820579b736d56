"""The loop that runs every sampler: one `lax.scan` over times and keys."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser, Sampler


class Outcome(NamedTuple):
    """What a sampler ends with."""

    x: Array  # samples `[B, ...]`
    state: Any  # of the sampler after its last step; of particles, their weights
    kept: Array | None  # states on the way `[K, B, ...]`, if they were asked for


@checked(keep_every="[0, inf)")
def run(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Array,
    x_T: Array,
    cond: Cond,
    keys: Array,
    keep_every: int = 0,
    tells_until: bool = False,
) -> Outcome:
    """Runs `sampler` from `x_T` along `times`.

    Args:
        denoiser: the (guided) denoiser.
        sampler: the method.
        times: `[steps + 1]`, descending; ascending for inversion, with a deterministic sampler.
        x_T: `[B, ...]` noise at `times[0]`.
        cond: conditioning, arrays `[B, ...]`.
        keys: `[B]`, one key per sample: a sample does not depend on the rest of its batch.
        keep_every: also return every n-th state, with the first and the last; 0: none.
        tells_until: pass the end time of each step as `cond["until"]` `[B]`: with it DDIM's step
            can be the exact step of a flow map.

    Raises:
        ValueError: a stochastic sampler is given ascending times.
    """
    if sampler.stochastic and not isinstance(times, jax.core.Tracer):
        first, last = np.asarray(times)[[0, -1]]
        if first < last:
            raise ValueError(
                f"a sampler that draws noise cannot run from t = {first:g} up to {last:g}: use a "
                "deterministic sampler for inversion"
            )
    steps = times.shape[0] - 1
    extra = sampler.extra if steps else 0
    kept = jnp.zeros((-(-steps // keep_every) + 1, *x_T.shape), x_T.dtype) if keep_every else None
    if kept is not None:
        kept = kept.at[0].set(x_T)

    def body(carry: tuple, step: tuple) -> tuple[tuple, None]:
        x, state, kept = carry
        i, t, s = step

        def denoise(x_t: Array, t: Array) -> Denoised:
            times = {"until": jnp.full(x_t.shape[:1], s)} if tells_until else {}
            return denoiser(x_t, jnp.full(x_t.shape[:1], t), {**cond, **times})

        x, state = sampler.step(denoise, state, x, t, s, fold_in(keys, i))
        if kept is not None:
            # Each slot ends up with the last state written to it.
            kept = kept.at[jnp.maximum(i - extra, 0) // keep_every + 1].set(x)
        return (x, state, kept), None

    carry = (x_T, sampler.init(x_T), kept)
    times = jnp.concatenate([times[:1], *[times[1:2]] * extra, times[1:]])
    each = jnp.arange(steps + extra), times[:-1], times[1:]
    (x, state, kept), _ = jax.lax.scan(body, carry, each)
    return Outcome(x, state, kept)


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Array,
    x_T: Array,
    cond: Cond,
    keys: Array,
    keep_every: int = 0,
    tells_until: bool = False,
) -> tuple[Array, Array | None]:
    """As `run`, without the sampler's state: samples `[B, ...]` and the kept `[K, B, ...]`."""
    outcome = run(denoiser, sampler, times, x_T, cond, keys, keep_every, tells_until)
    return outcome.x, outcome.kept
