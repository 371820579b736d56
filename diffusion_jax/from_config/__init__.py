"""Building objects from a config; no other package reads config strings.

All functions raise a `ConfigError` for settings that cannot work.
"""

from diffusion_jax.from_config.averages import evaluated, sample_average
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.from_config.data import planned_dataset
from diffusion_jax.from_config.identity import config_hash
from diffusion_jax.from_config.parts import Parts, build, make_step
from diffusion_jax.from_config.sampling import SAMPLERS, grids_to_start_from, make_sampler
