"""Grids of a table beside those of diffusers, in `reference/schedulers.npz`."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.diffusion import time_grids

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "schedulers.npz")


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", ["ddim", "dpm"])
def test_grids_of_stable_diffusion_are_those_of_diffusers_for_1_to_100_steps(name, spacing):
    """Except where theirs has an entry too many, and one below the table's first."""
    lengths = REFERENCE[f"grids/{name}/{spacing}/lengths"]
    theirs = np.split(REFERENCE[f"grids/{name}/{spacing}"], np.cumsum(lengths)[:-1])
    settings = {} if spacing == "trailing" else {"skip": int(name == "dpm")}
    settings |= {"offset": 1} if spacing == "leading" else {}
    grid, wrong = getattr(time_grids, spacing), []
    for steps, index in enumerate(theirs, 1):
        times = np.asarray(grid(steps, **settings))
        assert np.all(np.diff(times) < 0)
        assert (len(times), times[-1]) == (steps + 1, 0)
        assert times[0] <= 1
        wrong += [steps] if index[-1] < 0 else []
        np.testing.assert_allclose(times[:-1] * 1000 - 1, index[:steps], atol=1e-3)
    assert wrong == ([61] if spacing == "trailing" else [])


def test_grids_at_48_steps_are_the_published_ones():
    def index(grid, **settings):
        return np.rint(np.asarray(grid(48, **settings)) * 1000 - 1).astype(int).tolist()

    ends = {"offset": 1, "end": 0.001}
    assert index(time_grids.leading, **ends) == [*range(941, 0, -20), 0]
    assert index(time_grids.leading, offset=1, skip=1) == [*range(961, 20, -20), -1]
    for grid in (time_grids.linspace, time_grids.trailing):
        assert index(grid, end=0.001)[:: len(grid(48, end=0.001)) - 1] == [999, 0]
        assert index(grid)[::48] == [999, -1]


@pytest.mark.parametrize("grid", [time_grids.leading, time_grids.linspace, time_grids.trailing])
def test_grids_of_a_table_descend_to_their_end(grid):
    """Where an entry is the end already, or below it, there are fewer steps."""
    for steps in range(2, 101):
        for end in (0.0, 0.001, 0.05):
            times = np.asarray(grid(steps, end=end))
            assert np.all(np.diff(times) < 0)
            np.testing.assert_allclose(times[-1], end)
            assert steps + 1 - len(times) == np.sum(np.asarray(grid(steps))[:-1] < end + 1e-6)
    with pytest.raises(ValueError, match=r"end=0\.5 must be below the first time .*, 0\.05"):
        time_grids.leading(1, num_steps=20, end=0.5)


def test_an_offset_past_the_table_is_refused():
    with pytest.raises(ValueError, match="offset=1 leads to entry 1001 of the 1000 of the table"):
        time_grids.leading(1000, offset=1)
