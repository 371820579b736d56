"""CLIP's text encoder (Radford et al. 2021), with published weights or trained from scratch.

Modules are named as in Hugging Face's `CLIPTextModel` weights, such as
`text_encoder/model.safetensors` of Stable Diffusion v1-5 and `model.safetensors` of
`openai/clip-vit-large-patch14`.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.models.attention import masked_attention, token_mask
from diffusion_jax.models.layers import Dtype, LayerNorm, at_least_float32, dense
from diffusion_jax.types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "gelu": partial(nn.gelu, approximate=False),
}
"""OpenAI's networks use quick_gelu (Hendrycks & Gimpel 2016), OpenCLIP's the exact GELU."""
TOKENS = "text_model.embeddings.token_embedding"
"""The module with the vectors of tokens."""


class ClipLayer(nn.Module):
    """Attention, then an MLP, each with a residual connection and pre-normalisation."""

    heads: int
    depth: int  # layers of the encoder, for the initialisation
    activation: str  # a name of `ACTIVATIONS`
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        """Features x [B, L, C] and attention mask [B, L, L] -> [B, L, C]."""
        c = x.shape[-1]
        norm = partial(LayerNorm, epsilon=1e-5, dtype=self.dtype)
        wide, narrow, out = (  # CLIP's initialisation: `initialize_parameters` of its code
            partial(dense, kernel_init=nn.initializers.normal(std), dtype=self.dtype)
            for std in ((2 * c) ** -0.5, c**-0.5, (2 * self.depth * c) ** -0.5)
        )
        h = norm(name="layer_norm1")(x)
        q, k, v = (narrow(c, name=f"self_attn.{part}_proj")(h) for part in "qkv")
        x += out(c, name="self_attn.out_proj")(masked_attention(q, k, v, self.heads, mask))
        h = wide(4 * c, name="mlp.fc1")(norm(name="layer_norm2")(x))
        return x + out(c, name="mlp.fc2")(ACTIVATIONS[self.activation](h))


class TextTower(nn.Module):
    """A transformer over the tokens of a text; the defaults are those of ViT-L/14."""

    vocabulary: int = 49408  # number of tokens
    positions: int = 77  # largest number of tokens in a text
    width: int = 768  # token width
    depth: int = 12  # number of layers
    heads: int = 12  # attention heads; divides `width`
    projection: int = 0  # width of the projected text embedding; 0: no projection, `width`
    end: int = 49407  # end token; the embedding is read at its first position, so texts need one
    causal: bool = True  # whether tokens attend only to earlier ones
    activation: str = "quick_gelu"  # of the MLPs, a name of `ACTIVATIONS`
    skip: int = 0  # last layers that the features pass by ("CLIP skip"), at most `depth`
    # compute dtype; parameters are initialised in float32, and others keep their dtype
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> tuple[Array, Array]:
        """Tokens int32 [B, L] to features [B, L, width] and text embeddings; L <= `positions`.

        Features are normalised outputs of the last layer, or of the one `skip` layers before it;
        embeddings are always those of the last. Both are float32, or float64 with that `dtype`.
        Tokens of -1 are padding, which does not affect the others; published networks pad with
        `end` instead. Features of padding are 0, and so are the embeddings [B, projection or
        width] of texts without tokens.
        """
        if tokens.shape[1] > self.positions:
            raise ValueError(
                f"a text of {tokens.shape[1]} tokens is longer than positions={self.positions}"
            )
        if not 0 <= self.skip <= self.depth:
            raise ValueError(f"skip={self.skip} must be 0 to the number of layers, {self.depth}")
        init = nn.initializers.normal

        def table(rows: int, std: float, name: str) -> nn.Embed:
            return nn.Embed(rows, self.width, self.dtype, embedding_init=init(std), name=name)

        words = table(self.vocabulary, 0.02, TOKENS)(jnp.maximum(tokens, 0))
        places = table(self.positions, 0.01, "text_model.embeddings.position_embedding")
        x = words + places(jnp.arange(tokens.shape[1]))
        mask, layer = token_mask(tokens, self.causal), (self.heads, self.depth, self.activation)
        outputs = [x]  # of all layers: passed-by ones have parameters and make the embeddings
        for number in range(self.depth):
            block = ClipLayer(*layer, self.dtype, name=f"text_model.encoder.layers.{number}")
            outputs.append(block(outputs[-1], mask))
        norm = LayerNorm(epsilon=1e-5, name="text_model.final_layer_norm")
        features, last = (
            jnp.where((tokens >= 0)[..., None], norm(at_least_float32(x)), 0.0)
            for x in (outputs[self.depth - self.skip], outputs[-1])
        )
        ends = tokens == self.end
        first = ends & (jnp.cumsum(ends, axis=1) == 1)
        pooled = jnp.einsum("bl,blc->bc", first.astype(last.dtype), last)
        if self.projection:
            pooled = dense(
                self.projection, init(self.width**-0.5), use_bias=False, name="text_projection"
            )(pooled)
        return features, pooled
