"""Networks of tokens: a network of signals, here the DiT, to logits of tokens or of classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.types import Array, Cond


class TokenNetwork(nn.Module):
    """`(x_t, t, cond, train) -> logits`: tokens int32 [B, L] to logits float32 [B, L, V].

    A token is a one-hot signal of V + 1 channels, as V is the mask: the first layer of the network
    is its embedding.
    """

    network: nn.Module  # of signals [B, L, V + 1], with V output channels
    vocabulary: int  # V
    # Whether logits depend on the time; those of the masked process need not, as the law of what is
    # masked given the rest is the same at all times (Ou et al. 2025).
    timed: bool = False
    # Whether token i is predicted from what is before it: it sees its neighbour to the left in its
    # own place, and the first one sees a mask. The network itself must be causal.
    shifted: bool = False

    @nn.compact
    def __call__(self, x_t: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See the class."""
        if self.shifted:
            x_t = jnp.pad(x_t[:, :-1], ((0, 0), (1, 0)), constant_values=self.vocabulary)
        signal = jax.nn.one_hot(x_t, self.vocabulary + 1)
        logits: Array = self.network(signal, _told(t, self.timed), cond, train)
        return logits


class TokenClassifier(nn.Module):
    """`(signal, t, cond, train) -> logits`: float32 [B, L, V + 1] to float32 [B, C].

    A signal is one-hot tokens, of which V is the mask, or laws of tokens: guidance differentiates
    by it. The logits are the mean of the network's outputs over all positions.
    """

    network: nn.Module  # of signals, with C output channels
    timed: bool = False  # whether logits depend on the time; the number of masks tells it, too

    @nn.compact
    def __call__(self, signal: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See the class."""
        return jnp.mean(self.network(signal, _told(t, self.timed), cond, train), axis=1)


def _told(t: Array, timed: bool) -> Array:
    """The time input of a network of signals."""
    return 1000.0 * t if timed else jnp.zeros_like(t)
