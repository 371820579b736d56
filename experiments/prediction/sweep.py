"""Sweep over predictions and weightings of noise levels."""

from diffusion_jax.sweep import Sweep


def get_sweep() -> Sweep:
    """Nine settings, three seeds; half of the quick start's steps."""
    return Sweep(
        "objective.prediction=eps,x0,v; objective.weighting=uniform,min_snr,sigmoid; seed=0,1,2",
        question=(
            "Which prediction (eps, x_0, v) with which weighting of noise levels gives the lowest "
            "Frechet distance on scikit-learn's digits after 1,000 steps?"
        ),
        hypothesis=(
            "v is best, eps worst: with few sampling steps an error of eps at the noisy end is "
            "multiplied by sigma / alpha. The weighting matters less than the prediction, as Adam "
            "and a small network fit all noise levels here."
        ),
        fixed={
            "train.steps": 1000,
            "train.heldout_every": 500,
            "train.sample_every": 0,
            "train.checkpoint_every": 500,
            "evaluate.metrics": "distances,denoising",
        },
    )
