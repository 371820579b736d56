"""The space that is diffused."""

from diffusion_jax.codecs.codec import Codec, Identity
