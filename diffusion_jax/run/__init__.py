"""One run from its config and workdir: train, sample, evaluate, report."""

from diffusion_jax.run.command import run, run_abreast
from diffusion_jax.run.trained import Run, Trained, open_run
