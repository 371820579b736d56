"""What a config will do, before any time is spent: with its noise levels, and on which devices."""

from diffusion_jax.plan.devices import plan_here, plan_topology
from diffusion_jax.plan.hardware import TopologyError, parse_topology
from diffusion_jax.plan.noise_levels import Plan, make_plan
