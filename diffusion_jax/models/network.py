"""The inputs and the output that the networks of denoisers have in common."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.layers import ConditionEmbedding, Dtype
from diffusion_jax.types import Array, Cond


class Network(nn.Module, kw_only=True):
    """A network `(x_t, t, cond, train) -> prediction`, for samples of any number of axes.

    It is given noisy samples `x_t` [B, ..., C], times `t` [B] as the process tells them
    (`process.TimeInput`), and `cond` as in `conditioning.py`, of which it reads what its attributes
    say: `label`, `text`, the `vectors`, `image`. What is off or not there is unconditional. With
    `train` dropout is on, where there is one; it takes the 'dropout' key. The prediction is float32
    [B, ..., out_channels].
    """

    # width of the embedded texts `cond['text']` that attention goes to as well; 0 is no text
    context_dim: int = 0
    num_classes: int = 0  # classes of `cond['label']`; 0 for none
    vectors: Sequence[str] = ()  # names of the vectors in `cond` that are read, such as 'pooled'
    image_channels: int = 0  # of `cond['image']`, of the sample's own axes, beside it; 0 for none
    out_channels: int = 3  # channels of the prediction; twice the sample's with a learned variance
    remat: str = "none"  # what blocks compute again in the backward pass, a name of `remat.REMAT`
    dtype: Dtype = jnp.float32  # compute dtype; parameters and output are float32

    def embedding(self, t: Array, cond: Cond, features: int, frequencies: int) -> Array:
        """What all blocks read of the times and of `cond`: [B, features]."""
        embed = ConditionEmbedding(
            features, frequencies, self.num_classes, self.vectors, self.dtype, name="embedding"
        )
        return nn.silu(embed(t, cond))
