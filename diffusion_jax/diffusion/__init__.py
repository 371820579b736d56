"""The diffusion process: schedules, times, prediction types, conditioning."""

from diffusion_jax.diffusion import schedules, time_grids, time_sampling
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian, Process
