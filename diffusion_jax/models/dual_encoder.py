"""A small CLIP: pictures and texts as vectors of one space (Radford et al. 2021)."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.classifier import Classifier
from diffusion_jax.models.layers import Dtype, dense
from diffusion_jax.types import Array, Cond

LARGEST = 100.0  # of the scale, as in CLIP, for stability


class Likeness(NamedTuple):
    """Pictures and texts in one space."""

    images: Array  # unit vectors `[B, width]`
    texts: Array  # unit vectors `[B, width]`; 0 of no text
    scale: Array  # `[]`, the inverse temperature of their products


class DualEncoder(nn.Module):
    """Convolutions over the picture, and a linear map of the text's vector."""

    width: int  # of the space
    channels: int  # of the first stage of the convolutions
    features: int  # of the layer below the picture's vector
    dropout: float  # rate, in the picture's part
    dtype: Dtype = jnp.float32  # compute dtype; outputs are float32

    @nn.compact
    def __call__(self, x: Array, cond: Cond, train: bool = False) -> Likeness:
        """Pictures `[B, H, W, C]` in [-1, 1] and `cond['pooled']` `[B, P]`."""
        sizes = self.width, self.channels, self.features
        images, _ = Classifier(*sizes, self.dropout, self.dtype)(x, train)
        project = dense(self.width, dtype=self.dtype, use_bias=False, name="text_projection")
        texts = project(cond["pooled"].astype(self.dtype))
        scale = self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ())
        return Likeness(_unit(images), _unit(texts), jnp.minimum(jnp.exp(scale), LARGEST))


def _unit(x: Array) -> Array:
    x = x.astype(jnp.float32)
    # The square root of 0 has no gradient.
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-12))
