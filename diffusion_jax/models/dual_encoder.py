"""A small CLIP: images and texts as embeddings in a common space (Radford et al. 2021)."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.classifier import Classifier
from diffusion_jax.models.layers import Dtype, dense
from diffusion_jax.types import Array, Cond

LARGEST = 100.0  # upper limit of the scale, as in CLIP, for stability


class Likeness(NamedTuple):
    """Embeddings of images and texts, and the scale of their products."""

    images: Array  # unit vectors `[B, width]`
    texts: Array  # unit vectors `[B, width]`; 0 for no text
    scale: Array  # `[]`, inverse temperature of the products


class DualEncoder(nn.Module):
    """Convolutions over the image, and a linear map of the text embedding."""

    width: int  # width of the common space
    channels: int  # width of the first convolutional stage
    features: int  # width of the layer before the image embedding
    dropout: float  # rate, in the image encoder
    dtype: Dtype = jnp.float32  # compute dtype; outputs are float32

    @nn.compact
    def __call__(self, x: Array, cond: Cond, train: bool = False) -> Likeness:
        """Images `[B, H, W, C]` in [-1, 1] and `cond['pooled']` `[B, P]`."""
        sizes = self.width, self.channels, self.features
        images, _ = Classifier(*sizes, self.dropout, self.dtype)(x, train)
        project = dense(self.width, dtype=self.dtype, use_bias=False, name="text_projection")
        texts = project(cond["pooled"].astype(self.dtype))
        scale = self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ())
        return Likeness(_unit(images), _unit(texts), jnp.minimum(jnp.exp(scale), LARGEST))


def _unit(x: Array) -> Array:
    x = x.astype(jnp.float32)
    # The maximum is needed as the square root has no gradient at 0.
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-12))
