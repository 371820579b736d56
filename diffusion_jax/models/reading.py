"""A network trained together with its text encoder."""

from typing import Any

import flax.linen as nn

from diffusion_jax.models.clip import TextTower


class Reading(nn.Module):
    """`network` with the outputs of the text encoder `tower` for `cond['tokens']`."""

    tower: TextTower  # from tokens int32 [B, L], -1 for padding, to features and embeddings
    network: nn.Module  # its last input is `cond`, which receives these as `text` and `pooled`

    @nn.compact
    def __call__(self, *inputs: Any, train: bool = False) -> Any:
        """Same as `network`; without tokens there is no text."""
        *first, cond = inputs
        rest = {name: value for name, value in cond.items() if name != "tokens"}
        if "tokens" in cond:
            rest["text"], rest["pooled"] = self.tower(cond["tokens"])
        return self.network(*first, rest, train=train)
