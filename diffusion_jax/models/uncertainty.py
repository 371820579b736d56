"""Learned magnitude of the loss at each noise level."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array


class Uncertainty(nn.Module):
    """Log variance `u(t)` of the loss: one linear layer over random Fourier features (EDM2).

    Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models",
    after Kendall et al. 2018. Starts at `u = 0`, which leaves the loss unchanged.
    """

    features: int = 128

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """`u` for times `t`, both `[B]`."""
        # Constants, not parameters: the features are the same in every run.
        frequency, phase = jax.random.normal(make_key(0), (2, self.features))
        angles = 2 * jnp.pi * (2 * t[:, None] * frequency + phase)
        features = jnp.sqrt(2.0) * jnp.cos(angles)
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(features)[:, 0]
