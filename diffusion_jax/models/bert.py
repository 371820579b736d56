"""The BERT encoder (Devlin et al. 2019) of sentence-transformers' MiniLM (Wang et al. 2020).

Modules are named as in the published weights, `all-MiniLM-L6-v2/model.safetensors`.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from diffusion_jax.models.attention import masked_attention, token_mask
from diffusion_jax.models.layers import LayerNorm, dense
from diffusion_jax.types import Array

norm = partial(LayerNorm, epsilon=1e-12)


class BertLayer(nn.Module):
    """Attention, then an MLP, each with a residual connection and post-normalisation."""

    heads: int

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        """Features x [B, L, C] and attention mask [B, L, L] -> [B, L, C]."""
        c = x.shape[-1]
        q, k, v = (dense(c, name=f"attention.self.{part}")(x) for part in ("query", "key", "value"))
        h = dense(c, name="attention.output.dense")(masked_attention(q, k, v, self.heads, mask))
        x = norm(name="attention.output.LayerNorm")(x + h)
        h = nn.gelu(dense(4 * c, name="intermediate.dense")(x), approximate=False)
        return norm(name="output.LayerNorm")(x + dense(c, name="output.dense")(h))


class Bert(nn.Module):
    """The frozen encoder; the defaults are those of MiniLM-L6."""

    vocabulary: int = 30522  # number of tokens
    positions: int = 512  # largest number of tokens in a text
    width: int = 384  # token width
    depth: int = 6  # number of layers
    heads: int = 12  # attention heads

    @nn.compact
    def __call__(self, tokens: Array) -> tuple[Array, Array]:
        """Tokens int32 [B, L], -1 for padding, to features [B, L, C] and embeddings [B, C].

        Features of padding are 0. The embedding is the mean feature of the tokens, normalised to
        length 1 (sentence-transformers), and 0 for an empty text.
        """
        there = (tokens >= 0)[..., None]
        table = partial(nn.Embed, features=self.width, embedding_init=nn.initializers.normal(0.02))
        x = table(self.vocabulary, name="embeddings.word_embeddings")(jnp.maximum(tokens, 0))
        places = jnp.arange(tokens.shape[1])
        x += table(self.positions, name="embeddings.position_embeddings")(places)
        first = jnp.zeros((), int)  # token type of a text without a second one
        x += table(2, name="embeddings.token_type_embeddings")(first)
        x = norm(name="embeddings.LayerNorm")(x)
        mask = token_mask(tokens, causal=False)
        for number in range(self.depth):
            x = BertLayer(self.heads, name=f"encoder.layer.{number}")(x, mask)
        x = jnp.where(there, x, 0.0)
        mean = x.sum(1) / jnp.maximum(there.sum(1), 1)
        return x, mean * lax.rsqrt(jnp.maximum(jnp.square(mean).sum(-1, keepdims=True), 1e-24))
