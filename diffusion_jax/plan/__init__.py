"""Analysis of a config before training: its noise levels, its cost, and whether it fits."""

from diffusion_jax.plan.devices import plan_here, plan_topology
from diffusion_jax.plan.hardware import TopologyError, parse_topology
from diffusion_jax.plan.noise_levels import Plan, make_plan
from diffusion_jax.plan.sampling import plan_sampling
