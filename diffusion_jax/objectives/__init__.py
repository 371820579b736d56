"""Training objectives: each is a `LossFn`."""

from diffusion_jax.objectives.gaussian import Error, GaussianLoss
from diffusion_jax.objectives.parts import Conditioning, Times
