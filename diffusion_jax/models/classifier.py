"""A small convolutional classifier, whose features serve to evaluate samples."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.models.layers import Conv, Dtype
from diffusion_jax.types import Array


class Classifier(nn.Module):
    """Two stages of two 3x3 convolutions, then a hidden layer that gives the features."""

    num_classes: int  # number of logits
    channels: int = 32  # width of the first stage; the second is twice as wide
    features: int = 64  # width of the hidden layer
    dropout: float = 0.4  # rate before the logits; half of it after each stage
    dtype: Dtype = jnp.float32  # compute dtype

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Images `[B, H, W, C]` in [-1, 1] to logits `[B, num_classes]`, features `[B, features]`.

        Large images are first average-pooled to at most 32 pixels per side.
        """
        while min(x.shape[1:3]) > 32:
            x = nn.avg_pool(x, (2, 2), (2, 2))
        for width in (self.channels, 2 * self.channels):
            for _ in range(2):
                init = nn.initializers.lecun_normal()
                x = nn.relu(Conv(width, kernel_init=init, dtype=self.dtype)(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.Dropout(self.dropout / 2, deterministic=not train)(x)
        x = jnp.reshape(x, (x.shape[0], -1))
        features = jax.nn.relu(nn.Dense(self.features, dtype=self.dtype)(x))
        dropped = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.num_classes, dtype=self.dtype)(dropped), features
