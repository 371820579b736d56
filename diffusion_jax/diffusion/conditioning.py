"""Conditioning as a dict of arrays, any subset at once, and what it is when there is none.

| key | array | |
|---|---|---|
| `label` | int32 `[B]` | a class |
| `text` | float `[B, L, D]` | features of a text's tokens; no token is a row of zeros |
| `pooled` | float `[B, P]` | the text as one vector |
| `tokens` | int32 `[B, L]` | a text for an encoder that is part of the network; -1 is no token |
| `vector` | float `[B, E]` | any embedding |
| `image` | float `[B, H, W, C]` | a picture that belongs to the sample, in its size |
| `level` | float `[B, E]` | how much noise was added to that picture |
| `until` | float `[B]` | the time that a step goes to; it is no condition, and never off |

Numbers are switched off by -1, and floats by zeros.
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
"""What can be dropped on its own, and the arrays that it consists of."""


def unconditional(cond: Cond) -> Cond:
    """The same conditioning, all of it switched off."""

    def off(value: Array) -> Array:
        return jnp.full_like(value, -1 if jnp.issubdtype(value.dtype, jnp.integer) else 0)

    return {n: value if n == "until" else off(value) for n, value in cond.items()}


def drop(cond: Cond, keys: Array, rate: float, rates: Mapping[str, float] | None = None) -> Cond:
    """Switches off conditioning at random, as a network that can do without has to be trained.

    A network trained so knows both halves of classifier-free guidance (Ho & Salimans 2022). Of
    arrays `[B, ...]`, by a key for each sample `[B]`: `rate` is the probability with which all of a
    sample's conditioning is off, and `rates` are further ones for each of `PARTS`, independent of
    each other.
    """

    def off(keys: Array, rate: float, part: Cond) -> Cond:
        draws = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
        none = unconditional(part)
        return {n: jnp.where(per_sample(draws, v), none[n], v) for n, v in part.items()}

    found = dict(cond)
    for number, (part, names) in enumerate(PARTS.items()):
        if rates and rates.get(part):
            own = {name: found[name] for name in names if name in found}
            found |= off(fold_in(keys, number), rates[part], own)
    return off(keys, rate, found) if rate else found
