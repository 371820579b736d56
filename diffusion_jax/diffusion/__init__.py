"""The process from data to noise: schedules, times, predictions, conditioning."""

from diffusion_jax.diffusion import schedules, time_grids, time_sampling
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian, Process
