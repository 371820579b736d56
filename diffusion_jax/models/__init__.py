"""Networks: linen modules without any diffusion mathematics."""
