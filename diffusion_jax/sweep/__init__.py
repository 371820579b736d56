"""Ablations: many runs of a config with different values, and a report that compares them."""

from diffusion_jax.sweep.design import Sweep
