"""The network of block diffusion (Arriola et al. 2025), on all blocks at once or on one of them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from diffusion_jax.models.dit import DiT
from diffusion_jax.models.tokens import signal_of
from diffusion_jax.types import Array, Cond, Params


class BlockNetwork(nn.Module):
    """`(x_t, t, cond, train) -> logits`: tokens int32 [B, L] to logits float32 [B, L, V].

    A token is predicted from its own block of `x_t`, and from the earlier blocks of
    `cond["clean"]`, tokens [B, L] without noise, or if there are none of `x_t`: where these are
    finished. The time is not told.
    """

    network: DiT  # of signals [B, L, V + 1], with V output channels and `attention.block_mask`
    vocabulary: int  # V, which is also the mask

    @nn.compact
    def __call__(self, x_t: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See the class."""
        length = x_t.shape[1]
        both = jnp.concatenate([x_t, cond.get("clean", x_t)], axis=1)
        positions = jnp.tile(self.network.positions([length]), (2, 1))
        signal, t = self._signal(both)
        return self.network(signal, t, cond, train, positions)[:, :length]

    def of_block(self, tokens: Array, place: Array, length: int, cond: Cond) -> Array:
        """Logits [B, M, V] of the tokens [B, M] of a block that begins at a place, of L.

        Keys and values of the earlier blocks are in the variables "cache", and those of this one
        are written there.
        """
        positions = self.network.positions([length])
        positions = lax.dynamic_slice_in_dim(positions, place, tokens.shape[1])
        return self.network(*self._signal(tokens), cond, False, positions, place)

    def cache(self, num: int, length: int) -> dict[str, Any]:
        """An empty cache for so many samples."""
        net = self.network
        empty = jnp.zeros((net.depth, num, length, net.hidden_size), net.dtype)
        return {"network": {"blocks": {"keys": empty, "values": empty}}}

    def _signal(self, tokens: Array) -> tuple[Array, Array]:
        """The network's input of tokens and its times."""
        return signal_of(tokens, self.vocabulary), jnp.zeros(len(tokens))


def with_cache(
    network: BlockNetwork, params: Params, length: int, cond: Cond
) -> Callable[[Any, Array, Array], tuple[Array, Any]]:
    """`of_block` as a function `(cache, tokens [B, M], place []) -> (logits [B, M, V], cache)`."""

    def evaluate(cache: Any, tokens: Array, place: Array) -> tuple[Array, Any]:
        logits, changed = network.apply(
            *({"params": params, "cache": cache}, tokens, place, length, cond),
            method="of_block",
            mutable=["cache"],
        )
        return logits, changed["cache"]

    return evaluate
