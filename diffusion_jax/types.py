"""The few types that carry everything, and the aliases used in signatures.

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
"""`{'x': [B, ...], 'cond': Cond, 'index': int32 [B]}`; `index` is the place in the global batch."""
Metrics = dict[str, Array]

Embed = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Numbers of texts int `[B]` to conditioning, arrays `[B, ...]`; may be pickled."""


class Denoised(NamedTuple):
    """What a denoiser says of `x_0` given `x_t`, both shaped like `x_t`."""

    x_0: Array  # the mean of `x_0` given `x_t`
    # for networks with a learned reverse variance, the fraction in [0, 1] of the way from its lower
    # to its upper bound in log space (Eq. 15, Nichol & Dhariwal 2021); None for all others
    variance: Array | None = None


Denoiser = Callable[[Array, Array, Cond], Denoised]
"""`(x_t [B, ...], t [B], cond) -> Denoised`: what every sampler and every guidance sees."""

Condition = Callable[[Array, Array], Cond]
"""`(x_0 [B, ...], keys [B]) -> cond`: conditioning that is made from the data themselves."""


class Context(NamedTuple):
    """Inputs of a loss besides trained parameters and the batch; no gradient flows into them."""

    key: Key  # of this step
    step: Array  # int `[]`, steps taken before this one
    ema: Mapping[str, Params]  # averages of the parameters, by name, as they are before this step
    frozen: Mapping[str, Params]  # those not trained, by name: a codec, a teacher, CLIP
    axis_name: str | None = None  # mapped axis whose devices share the batch (static)


LossFn = Callable[[Params, Batch, Context], tuple[Array, Metrics]]
"""`(params, batch, context) -> (loss [B], metrics of [B])`."""

Denoise = Callable[[Array, Array], Denoised]
"""A `Denoiser` with its conditioning bound: `(x_t [B, ...], t []) -> Denoised`."""

Step = tuple[Array, Any]
"""`(x_s [B, ...], state)`: what a step of a sampler gives."""


class Sampler(NamedTuple):
    """One sampling method, run by `samplers.loop.sample`."""

    init: Callable[[Array], Any]  # `x_T -> state`, carried from step to step (often `()`)
    # `(denoise, state, x_t, t, s, keys) -> (x_s, state)` with scalar `t` and `s`
    step: Callable[[Denoise, Any, Array, Array, Array, Array], Step]
    evaluations: int = 1  # calls of the denoiser in a step
    stochastic: bool = False  # whether it draws noise, so that it cannot be run backwards
