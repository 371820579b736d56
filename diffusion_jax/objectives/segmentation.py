"""Segmentation: a mask per pixel, from pictures that are drawn together with their masks."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.types import Array, Batch, Context, Key, Metrics, Params


@dataclasses.dataclass(frozen=True)
class SegmentationLoss:
    """Binary cross-entropy of the mask, the mean over pixels: a `LossFn`.

    `-m log p - (1 - m) log(1 - p)` of masks `m` and probabilities `p`, so that the least of the
    expected loss is at the probability that a pixel is in the mask given the picture.
    """

    # the network, `(params, picture, dropout_key) -> log odds [B, ..., 1]`
    apply: Callable[[Params, Array, Key], Array]
    # `(x [B, ..., C], keys [B]) -> (picture [B, ..., C], mask [B, ..., 1])`
    draw: Callable[[Array, Array], tuple[Array, Array]]

    def __call__(self, params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        """Loss `[B]`, and the metric `wrong` `[B]`: the share of pixels misjudged at 1/2."""
        draw_key, dropout_key = jax.random.split(context.key)
        picture, mask = self.draw(batch["x"], sample_keys(draw_key, batch["index"]))
        odds = self.apply(params, picture, jax.random.fold_in(dropout_key, batch["index"][0]))
        axes = tuple(range(1, odds.ndim))
        wrong = jnp.mean((odds > 0) != (mask > 0), axes, dtype=jnp.float32)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(odds, mask), axes), {"wrong": wrong}
