"""Every experiment is tested here, and sweeps are read."""

from pathlib import Path

import pytest

from configs import digits
from diffusion_jax.sweep.design import check, load, make_runs
from tests.runs import ROOT

SWEEPS = ("prediction/five_seeds", "prediction/sweep", "schedule_size/sweep")


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_sound(name: str) -> None:
    runs = make_runs(load(f"experiments/{name}.py"), digits.get_config())
    check(runs[::7], 1)
    assert len(runs) == (45 if name == "prediction/five_seeds" else 27)


def test_every_experiment_is_here() -> None:
    """A new one is built here too."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        name = str(path.relative_to(ROOT / "experiments").with_suffix(""))
        assert f'"{name}"' in text, f"experiments/{name}.py has no test in tests/experiments"
