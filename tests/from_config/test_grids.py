"""Times that cannot be sampled at are refused before sampling, or left out."""

import re

import numpy as np
import pytest

from diffusion_jax.diffusion.time_grids import RESOLVED
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.process import make_schedule
from diffusion_jax.from_config.sampling import grids_to_start_from, make_grid
from tests.runs import tiny


@pytest.mark.parametrize(("grid", "left"), [("quadratic", 766), ("uniform", 946), ("karras", 1000)])
def test_noise_that_float32_cannot_hold_is_left_out(grid: str, left: int) -> None:
    config = tiny(schedule__name="edm", sample__grid=grid, sample__steps=1000)
    schedule = make_schedule(config)
    times = make_grid(config, schedule)
    assert (len(times) - 1, times[-1]) == (left, 0)
    assert np.max(schedule.logsnr(times[:-1])) < RESOLVED
    # A search begins at grids of as many steps as any has.
    assert {len(t) for t in grids_to_start_from(config, schedule).values()} == {1001}


@pytest.mark.parametrize("schedule", ["cosine", "flow", "ve", "linear_logsnr"])
def test_no_step_is_left_out_elsewhere(schedule: str) -> None:
    for grid in ("uniform", "quadratic", "trailing"):
        config = tiny(schedule__name=schedule, sample__grid=grid, sample__steps=1000)
        assert len(make_grid(config, make_schedule(config))) == 1001


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"sample__grid": "leading", "sample__steps": 1},
            "sample.grid='leading' with sample.steps=1 and sample.t_max=1.0 starts from pure noise "
            "at t = 0.001, where the schedule has 6.4e+02 times more signal than noise; use more "
            "steps, another grid or a larger sample.t_max",
        ),
        (
            {"schedule__name": "edm", "schedule__edm__rho": 20.0, "sample__t_max": 0.005},
            "starts from pure noise at t = 0.005, where the schedule has inf times more signal",
        ),
        (
            {"sample__t_max": 0.05},
            "sample.grid='uniform' with sample.steps=4 and sample.t_max=0.05 starts from pure "
            "noise at t = 0.05, where the schedule has 13 times more signal than noise; use",
        ),
        (
            {"schedule__name": "edm", "schedule__edm__sigma_max": 0.05},
            "starts from pure noise at t = 1, where the schedule has 20 times more signal than",
        ),
    ],
)
def test_noise_alone_is_no_start_where_there_is_next_to_none(asked: dict, says: str) -> None:
    config = tiny(**asked)
    with pytest.raises(ConfigError, match=re.escape(says)):
        make_grid(config, make_schedule(config))
