"""Texts as what networks read: tokens, and what frozen encoders say of them."""

from diffusion_jax.text.cache import TextTable, embed_all
from diffusion_jax.text.encoder import TextEncoder, load_clip, load_minilm
from diffusion_jax.text.reader import Reader
from diffusion_jax.text.tokens import (
    BYTE_END,
    BYTE_VOCABULARY,
    Tokens,
    byte_tokens,
    load_tokeniser,
)

__all__ = [
    "BYTE_END",
    "BYTE_VOCABULARY",
    "Reader",
    "TextEncoder",
    "TextTable",
    "Tokens",
    "byte_tokens",
    "embed_all",
    "load_clip",
    "load_minilm",
    "load_tokeniser",
]
