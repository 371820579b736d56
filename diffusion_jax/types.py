"""The types that pass between all parts, and the aliases used in signatures.

Vocabulary: `x_0` is data, `x_t` noisy data, `x_T` pure noise. Time `t` runs in [0, 1] from clean
to noise, and a sampling step goes from `t` to `s < t`. Images are float32 `[B, H, W, C]` in
[-1, 1]. A `key` is a typed PRNG key, `keys` is an array `[B]` of them, one per sample.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
Key = jax.Array
Params = Any
Cond = Mapping[str, Array]
Batch = Mapping[str, Any]
"""`{'x': [B, ...], 'cond': Cond, 'index': int32 [B]}`; `index`: positions in the global batch."""
Metrics = dict[str, Array]

Embed = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Text numbers int `[B]` to conditioning, arrays `[B, ...]`; picklable, for workers."""


class Denoised(NamedTuple):
    """A denoiser's estimate of `x_0` given `x_t`, shaped like `x_t`."""

    x_0: Array  # mean of `x_0` given `x_t`
    # learned reverse variance as a fraction in [0, 1] of the way from its lower to its upper bound
    # in log space (Eq. 15, Nichol & Dhariwal 2021); None if it is not learned
    variance: Array | None = None


Denoiser = Callable[[Array, Array, Cond], Denoised]
"""`(x_t [B, ...], t [B], cond) -> Denoised`: the interface of all samplers and guidance."""

Condition = Callable[[Array, Array], Cond]
"""`(x_0 [B, ...], keys [B]) -> cond`: conditioning computed from the data themselves."""


class Context(NamedTuple):
    """Inputs of a loss other than trained parameters and batch; no gradient flows into them."""

    key: Key  # of this step
    step: Array  # int `[]`, number of steps taken before this one
    ema: Mapping[str, Params]  # averages of the parameters before this step, by name
    frozen: Mapping[str, Params]  # parameters that are not trained, by name: a codec, teacher, CLIP
    axis_name: str | None = None  # mapped axis of the devices that share the batch (static)


LossFn = Callable[[Params, Batch, Context], tuple[Array, Metrics]]
"""`(params, batch, context) -> (loss [B], metrics of [B])`."""

Denoise = Callable[[Array, Array], Denoised]
"""A `Denoiser` with its conditioning bound: `(x_t [B, ...], t []) -> Denoised`."""

Step = tuple[Array, Any]
"""`(x_s [B, ...], state)`: the result of one sampler step."""


class Sampler(NamedTuple):
    """A sampling method, run by `samplers.loop.sample`."""

    init: Callable[[Array], Any]  # `x_T -> state`, carried between steps (often `()`)
    # `(denoise, state, x_t, t, s, keys) -> (x_s, state)` with scalar `t` and `s`
    step: Callable[[Denoise, Any, Array, Array, Array, Array], Step]
    evaluations: int = 1  # denoiser evaluations per step
    stochastic: bool = False  # whether steps draw noise; such samplers cannot run backwards
    # further steps, each from the end of the first one to itself, for more evaluations in that one
    extra: int = 0

    def total(self, steps: int) -> int:
        """Denoiser evaluations of so many steps."""
        return (steps + self.extra) * self.evaluations
