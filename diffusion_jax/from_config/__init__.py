"""The only place where config strings become objects, and where a bad config is refused."""

from diffusion_jax.from_config.averages import evaluated, sample_average
from diffusion_jax.from_config.checks import mesh_shape
from diffusion_jax.from_config.choices import Config, ConfigError, metrics_of
from diffusion_jax.from_config.evaluators import Means, make_evaluators, statistics_of
from diffusion_jax.from_config.guidance import make_guidance
from diffusion_jax.from_config.identity import config_hash, read_config, training_config
from diffusion_jax.from_config.parts import (
    Parts,
    build,
    make_parallel,
    make_step,
    planned_dataset,
    split_dataset,
)
from diffusion_jax.from_config.process import make_error, make_process, make_times
from diffusion_jax.from_config.sampling import (
    OPTIMISED,
    SAMPLERS,
    grids_to_start_from,
    make_sampler,
)

__all__ = [
    "OPTIMISED",
    "SAMPLERS",
    "Config",
    "ConfigError",
    "Means",
    "Parts",
    "build",
    "config_hash",
    "evaluated",
    "grids_to_start_from",
    "make_error",
    "make_evaluators",
    "make_guidance",
    "make_parallel",
    "make_process",
    "make_sampler",
    "make_step",
    "make_times",
    "mesh_shape",
    "metrics_of",
    "planned_dataset",
    "read_config",
    "sample_average",
    "split_dataset",
    "statistics_of",
    "training_config",
]
