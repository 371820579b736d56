"""CLIP's contrastive objective: matches images with their texts (Radford et al. 2021)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.models.dual_encoder import Likeness
from diffusion_jax.types import Array, Batch, Cond, Context, Key, Metrics, Params


def moved(x: Array, shifts: Array) -> Array:
    """Images `[B, H, W, C]`, each rolled by its own `shifts` `[B, 2]` down and to the right."""
    return jax.vmap(lambda image, shift: jnp.roll(image, shift, axis=(0, 1)))(x, shifts)


@dataclasses.dataclass(frozen=True)
class ContrastiveLoss:
    """Symmetric cross-entropy of texts given images and images given texts: a `LossFn`.

    `-(log softmax_j(s <x_i, y_j>)_i + log softmax_j(s <x_j, y_i>)_i) / 2` (Fig. 3, Radford et al.
    2021). The candidates are the whole batch over all devices, except other items with the same
    text. With gradient accumulation they are those of a microbatch.
    """

    # the network, `(params, x, cond, dropout_key) -> Likeness`
    apply: Callable[[Params, Array, Cond, Key], Likeness]
    max_shift: int = 0  # largest random shift of the images in pixels, in both directions

    def __call__(self, params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        """Loss `[B]`, and the metric `accuracy` `[B]`: whether the item's text ranks first."""
        x, cond, index = batch["x"], batch["cond"], batch["index"]
        shift_key, dropout_key = jax.random.split(context.key)
        if self.max_shift:
            ends = -self.max_shift, self.max_shift + 1
            draw = jax.vmap(lambda key: jax.random.randint(key, (2,), *ends))
            x = moved(x, draw(sample_keys(shift_key, index)))
        found = self.apply(params, x, cond, jax.random.fold_in(dropout_key, index[0]))
        words = cond["tokens" if "tokens" in cond else "pooled"]
        axis = context.axis_name
        all_images, all_texts, all_words = (
            jax.lax.all_gather(array, axis, tiled=True) if axis else array
            for array in (found.images, found.texts, words)
        )

        own = jnp.arange(len(x))
        if axis:
            own += jax.lax.axis_index(axis) * len(x)
        same = jnp.all(words[:, None] == all_words, axis=-1)
        other = same & (own[:, None] != jnp.arange(len(all_words)))

        def log_likelihood(mine: Array, candidates: Array) -> tuple[Array, Array]:
            logits = jnp.where(other, -jnp.inf, found.scale * mine @ candidates.T)
            picked = jax.nn.log_softmax(logits)[jnp.arange(len(x)), own]
            return picked, jnp.argmax(logits, axis=-1) == own

        of_text, right = log_likelihood(found.images, all_texts)
        of_image, _ = log_likelihood(found.texts, all_images)
        return -(of_text + of_image) / 2, {"accuracy": right.astype(jnp.float32)}
