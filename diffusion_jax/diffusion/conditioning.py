"""Conditioning: a dict with any subset of the arrays below, and how to switch it off.

| key | array | |
|---|---|---|
| `label` | int32 `[B]` | class |
| `text` | float `[B, L, D]` | features of a text's tokens; padding is rows of zeros |
| `pooled` | float `[B, P]` | embedding of a whole text |
| `tokens` | int32 `[B, L]` | input of a text encoder inside the network; -1 is padding |
| `vector` | float `[B, E]` | any other embedding |
| `image` | float `[B, H, W, C]` | second input image, of the sample's size |
| `level` | float `[B, E]` | embedded level of the noise added to that image |
| `inpainting` | float `[B, H, W, 1 + C]` | mask, 1 where to paint, and the rest; never off |
| `augment` | float `[B, E]` | how a training image was changed; 0: not at all; never off |
| `until` | float `[B]` | end time of the current step; not a condition, and never switched off |

Integers are switched off by -1, floats by zeros.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.types import Array, Cond

PARTS: dict[str, tuple[str, ...]] = {
    "label": ("label",),
    "text": ("text", "pooled", "tokens"),
    "vector": ("vector",),
    "image": ("image", "level"),
}
"""Parts of the conditioning that can be dropped separately, and the arrays of each."""
KEPT = ("until", "inpainting", "augment")
"""Arrays that are never switched off."""


def unconditional(cond: Cond) -> Cond:
    """The same conditioning with everything switched off."""

    def off(value: Array) -> Array:
        return jnp.full_like(value, -1 if jnp.issubdtype(value.dtype, jnp.integer) else 0)

    return {n: value if n in KEPT else off(value) for n, value in cond.items()}


def drop(
    cond: Cond,
    keys: Array,
    rate: float,
    rates: Mapping[str, float] | None = None,
    none: Cond | None = None,
) -> Cond:
    """Drops conditioning at random, to train one network with and without it.

    This makes classifier-free guidance possible (Ho & Salimans 2022). Acts on arrays `[B, ...]`,
    with one key per sample `[B]`: `rate` is the probability of dropping all of a sample's
    conditioning; `rates` are further probabilities for each of `PARTS`, all independent. `none` has
    arrays `[1, ...]` that stand for nothing in place of zeros.
    """

    def off(keys: Array, rate: float, part: Cond) -> Cond:
        draws = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
        nothing = {**unconditional(part), **(none or {})}
        return {n: jnp.where(per_sample(draws, v), nothing[n], v) for n, v in part.items()}

    found = dict(cond)
    for number, (part, names) in enumerate(PARTS.items()):
        if rates and rates.get(part):
            own = {name: found[name] for name in names if name in found}
            found |= off(fold_in(keys, number), rates[part], own)
    return off(keys, rate, found) if rate else found
