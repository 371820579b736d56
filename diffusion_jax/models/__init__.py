"""Networks: Flax linen modules, independent of diffusion."""
