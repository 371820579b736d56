"""The only place where config strings become objects.

Every function here raises a `ConfigError` where a setting is not possible.
"""

from diffusion_jax.from_config.averages import evaluated, sample_average
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.from_config.data import planned_dataset
from diffusion_jax.from_config.identity import config_hash
from diffusion_jax.from_config.parts import Parts, build, make_step
from diffusion_jax.from_config.sampling import SAMPLERS, grids_to_start_from, make_sampler
