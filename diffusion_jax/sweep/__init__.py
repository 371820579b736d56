"""Ablations: many runs of a config, each with other values, and a report on what differs."""

from diffusion_jax.sweep.design import Sweep
