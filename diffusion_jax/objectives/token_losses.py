"""Objectives of tokens as functions of a batch: bounds, and the autoregressive likelihood."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.prediction import Network
from diffusion_jax.diffusion.time_sampling import stratified
from diffusion_jax.objectives.parts import PLAIN, Conditioning
from diffusion_jax.types import Array, Batch, Cond, Context, Metrics, Params

Bound = Callable[[Params, Network, Array, Cond, Array, Array], tuple[Array, Array | None]]
"""`(params, network, x_0 [B, L], cond, u [B], keys [B]) -> (nats per token [B], times [B] | None)`.

`params` are those of the network, among them any that the process has; `u` is in [0, 1), spread
evenly over the batch.
"""


@dataclasses.dataclass(frozen=True)
class TokenLoss:
    """A bound of the negative log likelihood, in nats per token: a `LossFn`."""

    apply: Callable[..., Array]  # the network, `(params, x_t, t, cond, dropout_key) -> logits`
    bound: Bound
    batch_size: int  # of the global batch, over which `u` is stratified
    conditioning: Conditioning = PLAIN

    def __call__(self, params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        """Loss `[B]`, and the metrics `bits` per token and, if there are times, `t` and `error`.

        The error is the loss itself.
        """
        x, index = batch["x"], batch["index"]
        time_key, noise_key, cond_key, dropout_key = jax.random.split(context.key, 4)
        cond = self.conditioning(x, batch["cond"], sample_keys(cond_key, index))
        u = stratified(time_key, index, self.batch_size)
        dropout_key = jax.random.fold_in(dropout_key, index[0])

        def network(x_t: Array, t: Array, cond: Cond) -> Array:
            return self.apply(params, x_t, t, cond, dropout_key)

        loss, t = self.bound(params, network, x, cond, u, sample_keys(noise_key, index))
        metrics = {"bits": loss / jnp.log(2.0)}
        return loss, metrics if t is None else {**metrics, "t": t, "error": loss}


def autoregressive(
    params: Params, network: Network, x_0: Array, cond: Cond, u: Array, keys: Array
) -> tuple[Array, None]:
    """The negative log likelihood `[B]`, in nats per token, of a network that sees earlier tokens.

    A `Bound`, and exact: all tokens are predicted from those before them in one evaluation.
    """
    return -jnp.mean(_log_p(network, x_0, cond), axis=1), None


def log_likelihood(network: Network, x_0: Array, cond: Cond) -> Array:
    """`log p(x_0)` `[B]`, in nats, of a network that sees earlier tokens."""
    return jnp.sum(_log_p(network, x_0, cond), axis=1)


def _log_p(network: Network, x_0: Array, cond: Cond) -> Array:
    """`log p` `[B, L]` of each token given the earlier ones."""
    log_p = jax.nn.log_softmax(network(x_0, jnp.zeros(len(x_0)), cond))
    return jnp.take_along_axis(log_p, x_0[..., None], -1)[..., 0]
