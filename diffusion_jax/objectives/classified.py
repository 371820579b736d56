"""The class of a text, from its noisy tokens: for guidance by a classifier."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.time_sampling import stratified
from diffusion_jax.diffusion.tokens import Masked, Replaced
from diffusion_jax.types import Array, Batch, Context, Key, Metrics, Params


@dataclasses.dataclass(frozen=True)
class ClassLoss:
    """`-log p(y | x_t)` at uniform times, with the label y of `x_0`: a `LossFn`.

    The least of the expected loss is at the probability of the class given `x_t`, which is what
    guidance needs (Dhariwal & Nichol 2021; of tokens, Schiff et al. 2025).
    """

    # the network, `(params, one-hot x_t [B, L, V + 1], t [B], dropout_key) -> logits [B, C]`
    apply: Callable[[Params, Array, Array, Key], Array]
    process: Masked | Replaced
    batch_size: int  # of the global batch, over which times are stratified

    def __call__(self, params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        """Loss `[B]`, and the metrics `accuracy`, whether the label is the likeliest, `t`, `error`.

        The error is the loss itself.
        """
        x, index, label = batch["x"], batch["index"], batch["cond"]["label"]
        time_key, noise_key, dropout_key = jax.random.split(context.key, 3)
        t = 1 - stratified(time_key, index, self.batch_size)  # above 0
        x_t = self.process.corrupt(x, t, sample_keys(noise_key, index))
        signal = jax.nn.one_hot(x_t, self.process.vocabulary + 1)
        logits = self.apply(params, signal, t, jax.random.fold_in(dropout_key, index[0]))
        loss, right = judged(logits, label)
        return loss, {"accuracy": right, "t": t, "error": loss}


def judged(logits: Array, label: Array) -> tuple[Array, Array]:
    """`-log p(label)` and whether the label is the likeliest, as a float, `[B]` each."""
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
    return -log_p, (jnp.argmax(logits, axis=1) == label).astype(jnp.float32)
