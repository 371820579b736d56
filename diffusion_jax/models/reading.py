"""A network with the part that reads its texts, trained together."""

import flax.linen as nn

from diffusion_jax.models.clip import TextTower
from diffusion_jax.types import Array, Cond


class Reading(nn.Module):
    """`network`, given what `tower` makes of `cond['tokens']`.

    Attributes:
        tower: from tokens int32 [B, L], -1 where there is none, to features and vectors.
        network: reads these as `cond['text']` and `cond['pooled']`.
    """

    tower: TextTower
    network: nn.Module

    @nn.compact
    def __call__(self, x_t: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """As `network`; without tokens there is no text."""
        rest = {name: value for name, value in cond.items() if name != "tokens"}
        if "tokens" in cond:
            rest["text"], rest["pooled"] = self.tower(cond["tokens"])
        y: Array = self.network(x_t, t, rest, train)
        return y
