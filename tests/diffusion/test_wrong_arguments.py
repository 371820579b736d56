"""Invalid settings of schedules, training times and grids are refused on construction."""

import numpy as np
import pytest

from diffusion_jax.diffusion import schedules, time_grids, time_sampling
from diffusion_jax.diffusion.schedules import Cosine, Flow

NAN = float("nan")

WRONG = [
    (schedules.LinearBeta, {"beta_min": -0.1}),
    (schedules.LinearBeta, {"beta_min": 30.0}),
    (schedules.LinearBeta, {"beta_max": 0.0, "beta_min": 0.0}),
    (schedules.SubVP, {"beta_min": 30.0}),
    (schedules.DDPM, {"beta_start": 0.0}),
    (schedules.DDPM, {"beta_start": 0.1}),
    (schedules.DDPM, {"beta_end": 1.0}),
    (schedules.DDPM, {"num_steps": 0}),
    (schedules.ScaledLinear, {"beta_start": -0.1}),
    (schedules.Cosine, {"logsnr_min": 5.0}),
    (schedules.Cosine, {"logsnr_min": NAN}),
    (schedules.Sigmoid, {"start": 3.0}),
    (schedules.Sigmoid, {"end": np.inf, "start": 0.0}),
    (schedules.Sigmoid, {"tau": 0.0}),
    (schedules.Sigmoid, {"logsnr_min": 1.0}),
    (schedules.EDM, {"sigma_max": 0.0}),
    (schedules.EDM, {"rho": -1.0}),
    (schedules.VE, {"sigma_min": 0.0}),
    (schedules.VE, {"sigma_min": 50.0}),
    (schedules.VE, {"sigma_max": np.inf}),
    (schedules.LinearLogSNR, {"logsnr_min": 13.3}),
    (schedules.LinearLogSNR, {"logsnr_max": np.inf}),
    (schedules.Laplace, {"scale": 0.0}),
    (schedules.Cauchy, {"scale": -1.0}),
    (schedules.Cauchy, {"logsnr_min": 20.0}),
    (schedules.Cauchy, {"logsnr_max": np.inf}),
    (schedules.Shifted, {"factor": 0.0, "base": Flow()}),
    (time_sampling.uniform, {"t_min": -0.1}),
    (time_sampling.uniform, {"t_max": 1.5}),
    (time_sampling.uniform, {"t_min": 0.6, "t_max": 0.5}),
    (time_sampling.discrete, {"num_steps": 0}),
    (time_sampling.logit_normal, {"std": -1.0}),
    (time_sampling.logit_normal, {"mean": NAN}),
    (time_sampling.logit_normal, {"t_min": 0.5}),
    (time_sampling.log_normal, {"std": 0.0, "schedule": Cosine()}),
    (time_sampling.log_normal, {"mean": np.inf, "schedule": Cosine()}),
    (time_sampling.log_normal, {"t_min": -1.0, "schedule": Cosine()}),
    (time_grids.uniform, {"steps": 0}),
    (time_grids.uniform, {"t_min": 1.0, "steps": 5}),
    (time_grids.quadratic, {"t_min": -0.1, "steps": 5}),
    (time_grids.quadratic, {"t_max": 1.1, "steps": 5}),
    (time_grids.trailing, {"num_steps": 0, "steps": 5}),
    (time_grids.trailing, {"t_max": 0.0, "steps": 5}),
    (time_grids.trailing, {"steps": 1001}),
    (time_grids.leading, {"steps": -1}),
    (time_grids.leading, {"t_max": 0.0, "steps": 5}),
    (time_grids.leading, {"num_steps": -1, "steps": 5}),
    (time_grids.leading, {"steps": 1001}),
    (time_grids.karras, {"steps": 0, "schedule": Cosine()}),
    (time_grids.karras, {"sigma_min": 0.0, "steps": 5, "schedule": Cosine()}),
    (time_grids.karras, {"sigma_min": 90.0, "steps": 5, "schedule": Cosine()}),
    (time_grids.karras, {"rho": 0.0, "steps": 5, "schedule": Cosine()}),
    (time_grids.uniform_logsnr, {"sigma_min": 80.0, "steps": 5, "schedule": Cosine()}),
    (time_grids.karras, {"t_max": -1.0, "steps": 5, "schedule": Cosine()}),
    (time_grids.uniform_logsnr, {"t_max": 2.0, "steps": 5, "schedule": Cosine()}),
]


@pytest.mark.parametrize(("make", "given"), WRONG)
def test_wrong_settings_are_refused(make, given):
    """In a sentence that begins with the first of them, and gives its value."""
    name, value = next(iter(given.items()))
    with pytest.raises(ValueError, match=f"^{name}={value} (must lie in|is more than) "):
        make(**given)


def test_settings_at_the_edge_are_not():
    schedules.LinearBeta(0.0, 1.0), schedules.LinearBeta(2.0, 2.0), schedules.Cosine(-np.inf)
    schedules.DDPM(0.02, 0.02, 1), time_sampling.uniform(0.0, 1.0)
    time_grids.uniform(1), time_grids.trailing(1000), time_grids.karras(Cosine(), 1)
