"""The only place where config strings become objects, and where a bad config is refused."""

from diffusion_jax.from_config.averages import evaluated, sample_average
from diffusion_jax.from_config.checks import mesh_shape
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.from_config.extractors import make_extractor
from diffusion_jax.from_config.guidance import make_guide
from diffusion_jax.from_config.identity import config_hash, training_config
from diffusion_jax.from_config.network import CONTRASTIVE
from diffusion_jax.from_config.parts import (
    Parts,
    build,
    make_parallel,
    make_step,
    planned_dataset,
    split_dataset,
)
from diffusion_jax.from_config.process import make_objective
from diffusion_jax.from_config.sampling import (
    OPTIMISED,
    SAMPLERS,
    grids_to_start_from,
    make_sampler,
)

__all__ = [
    "CONTRASTIVE",
    "OPTIMISED",
    "SAMPLERS",
    "Config",
    "ConfigError",
    "Parts",
    "build",
    "config_hash",
    "evaluated",
    "grids_to_start_from",
    "make_extractor",
    "make_guide",
    "make_objective",
    "make_parallel",
    "make_sampler",
    "make_step",
    "mesh_shape",
    "planned_dataset",
    "sample_average",
    "split_dataset",
    "training_config",
]
