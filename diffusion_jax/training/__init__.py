"""One train step, its state, and the loop that runs it."""

from diffusion_jax.training.ema import Exponential, Power
from diffusion_jax.training.state import create_state, initial_state
from diffusion_jax.training.step import make_train_step
