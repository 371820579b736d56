"""Networks of tokens: a network of signals, here the DiT, between tokens and logits."""

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
        t = 1000.0 * t if self.timed else jnp.zeros_like(t)
        logits: Array = self.network(signal, t, cond, train)
        return logits


def powers(params: Params) -> Array:
    """Powers `[V]` of the token's schedules, 1 at first, of a `TokenNetwork` that has them."""
    return jnp.exp(params[LOG_POWERS])


def signal_of(tokens: Array, vocabulary: int) -> Array:
    """Tokens [B, L] as one-hot signals [B, L, V + 1] whose mean square is 1, that of other data.

    Without that scale the embedding of a token is so much smaller than that of its position that
    training begins with a long plateau, at the frequencies of the tokens.
    """
    return jnp.sqrt(vocabulary + 1.0) * jax.nn.one_hot(tokens, vocabulary + 1)
