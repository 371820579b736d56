"""Where things that can be made again are kept between runs."""

import os
from pathlib import Path

import jax


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/diffusion_jax`, by default `~/.cache/diffusion_jax`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "diffusion_jax"


def enable_compilation_cache() -> None:
    """Keeps compiled programs, so that the same run starts faster the next time."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
