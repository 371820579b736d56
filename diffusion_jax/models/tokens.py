"""Networks of tokens: a network of signals, here the DiT, to logits of tokens or of classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.types import Array, Cond, Params

LOG_POWERS = "log_powers"
"""Name of the parameters that `powers` are made of, a group of their own."""


class TokenNetwork(nn.Module):
    """`(x_t, t, cond, train) -> logits`: tokens int32 [B, L] to logits float32 [B, L, V].

    A token is a signal of V + 1 channels, as V is the mask: the first layer of the network is its
    embedding.
    """

    network: nn.Module  # of signals [B, L, V + 1], with V output channels
    vocabulary: int  # V
    # Whether logits depend on the time; those of the masked process need not, as the law of what is
    # masked given the rest is the same at all times (Ou et al. 2025).
    timed: bool = False
    # Whether token i is predicted from what is before it: it sees its neighbour to the left in its
    # own place, and the first one sees a mask. The network itself must be causal.
    shifted: bool = False
    # Whether there is a parameter for each token, for `powers`; logits do not depend on them.
    powers: bool = False

    @nn.compact
    def __call__(self, x_t: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See the class."""
        if self.shifted:
            x_t = jnp.pad(x_t[:, :-1], ((0, 0), (1, 0)), constant_values=self.vocabulary)
        if self.powers:
            self.param(LOG_POWERS, nn.initializers.zeros, (self.vocabulary,))
        signal = signal_of(x_t, self.vocabulary)
        logits: Array = self.network(signal, _told(t, self.timed), cond, train)
        return logits


def powers(params: Params) -> Array:
    """Powers `[V]` of the token's schedules, 1 at first, of a `TokenNetwork` that has them."""
    return jnp.exp(params[LOG_POWERS])


def signal_of(tokens: Array, vocabulary: int) -> Array:
    """Tokens [B, L] as signals [B, L, V + 1]."""
    return scaled(jax.nn.one_hot(tokens, vocabulary + 1))


def scaled(laws: Array) -> Array:
    """One-hot tokens or laws [B, L, V + 1], times so much that tokens have a mean square of 1.

    Without that scale, which other data have, the embedding of a token is so much smaller than that
    of its position that training begins with a long plateau, at the frequencies of the tokens.
    """
    return jnp.sqrt(laws.shape[-1]) * laws


class TokenClassifier(nn.Module):
    """`(laws, t, cond, train) -> logits`: float32 [B, L, V + 1] to float32 [B, C].

    Laws are one-hot tokens, of which V is the mask, or laws of tokens: guidance differentiates by
    them. The logits are the mean of the network's outputs over all positions.
    """

    network: nn.Module  # of signals, with C output channels
    timed: bool = False  # whether logits depend on the time; the number of masks tells it, too

    @nn.compact
    def __call__(self, laws: Array, t: Array, cond: Cond, train: bool = False) -> Array:
        """See the class."""
        logits = self.network(scaled(laws), _told(t, self.timed), cond, train)
        return jnp.mean(logits, axis=1)


def _told(t: Array, timed: bool) -> Array:
    """The time input of a network of signals."""
    return 1000.0 * t if timed else jnp.zeros_like(t)
