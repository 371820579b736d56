"""Groups of parameters that do not move are noticed, and no others."""

import numpy as np

from diffusion_jax.training.movement import PATIENCE, UPDATE_NORM, Movement

CRITIC = f"{UPDATE_NORM}critic"


def rows(*norms: object) -> list[dict[str, object]]:
    return [{CRITIC: norm, f"{UPDATE_NORM}decoder": 1.0, "grad_norm": 0.0} for norm in norms]


def test_a_group_that_stands_still_for_long_is_named() -> None:
    movement = Movement()
    assert movement([]) == ""
    assert movement(rows(*[0.0] * (PATIENCE - 1))) == ""
    said = movement(rows(0.0))
    assert said.startswith(f"the parameters of 'critic' have not moved in the last {PATIENCE} st")
    assert "optimizer.groups.critic" in said


def test_a_warm_up_is_no_stand_still() -> None:
    movement = Movement()
    assert movement(rows(*[0.0] * (PATIENCE - 1), 1e-9)) == ""
    assert movement(rows(*[0.0] * (PATIENCE - 1))) == ""


def test_each_of_several_runs_must_move() -> None:
    both = np.array([1.0, 0.0])
    assert "'critic'" in Movement()(rows(*[both] * PATIENCE))
    assert Movement()(rows(*[both[::-1], both] * PATIENCE)) != ""
    assert Movement()(rows(*[both + 1] * PATIENCE)) == ""
