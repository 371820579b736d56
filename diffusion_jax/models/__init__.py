"""Networks: linen modules without any diffusion mathematics."""

from diffusion_jax.models.applied import Applied
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.mlp import MLP
from diffusion_jax.models.unet import UNet
