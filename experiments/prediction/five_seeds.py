"""`sweep.py` with five seeds; it extends the sweep in the same workdir."""

import dataclasses

from diffusion_jax.sweep import Sweep
from experiments.prediction.sweep import get_sweep as three_seeds


def get_sweep() -> Sweep:
    """The nine settings of `sweep.py`, seeds 0 to 4."""
    sweep = three_seeds()
    return dataclasses.replace(sweep, runs=str(sweep.runs).replace("0,1,2", "0,1,2,3,4"))
