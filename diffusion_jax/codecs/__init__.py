"""Codecs: the space in which diffusion takes place."""

from diffusion_jax.codecs.codec import Codec, Identity
