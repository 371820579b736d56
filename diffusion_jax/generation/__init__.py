"""From parameters and a seed to samples."""

from diffusion_jax.generation.generator import Generator, Guidance, Request
