"""Diffusion models for research: see README.md.

`open_run(folder)` opens a trained model.
"""

from typing import Any

__all__ = ["open_run"]


def __getattr__(name: str) -> Any:
    """`open_run`, imported when it is asked for: importing the package alone is instant."""
    if name != "open_run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from diffusion_jax.run import open_run

    return open_run
