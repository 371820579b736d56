"""Texts: tokens, and features from frozen encoders."""

from diffusion_jax.text.cache import embed_all
from diffusion_jax.text.encoder import TextEncoder, load_encoder
from diffusion_jax.text.reader import Reader
from diffusion_jax.text.tokens import (
    BYTE_END,
    BYTE_VOCABULARY,
    Tokeniser,
    byte_tokens,
    load_tokeniser,
)
