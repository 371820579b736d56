"""A network with the part that reads its texts, trained together."""

from typing import Any

import flax.linen as nn

from diffusion_jax.models.clip import TextTower


class Reading(nn.Module):
    """`network`, given what `tower` makes of `cond['tokens']`."""

    tower: TextTower  # from tokens int32 [B, L], -1 where there is none, to features and vectors
    network: nn.Module  # its last input is `cond`, of which it reads these as `text` and `pooled`

    @nn.compact
    def __call__(self, *inputs: Any, train: bool = False) -> Any:
        """As `network`; without tokens there is no text."""
        *first, cond = inputs
        rest = {name: value for name, value in cond.items() if name != "tokens"}
        if "tokens" in cond:
            rest["text"], rest["pooled"] = self.tower(cond["tokens"])
        return self.network(*first, rest, train=train)
