"""Networks: Flax linen modules, independent of diffusion."""

from diffusion_jax.models.applied import Applied
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.mlp import MLP
from diffusion_jax.models.unet import UNet
