"""One run from its config and workdir: train, sample, evaluate, report."""

from diffusion_jax.run.command import run, run_abreast
from diffusion_jax.run.job import Job

__all__ = ["Job", "run", "run_abreast"]
