"""Invalid averages and learning rate schedules are refused on construction."""

import optax
import pytest

from diffusion_jax.training.ema import Exponential, Power
from diffusion_jax.training.optimizer import learning_rate_schedule, make_optimizer

RATE = {"learning_rate": 0.1, "steps": 10}
ADAM = {"name": "adam", "schedule": optax.constant_schedule(0.1)}

WRONG = [
    (Exponential, {"decay": 1.0}),
    (Exponential, {"decay": -0.1}),
    (Power, {"length": 0.9}),
    (Power, {"length": 0.0}),
    (learning_rate_schedule, {"learning_rate": -0.1, "steps": 10}),
    (learning_rate_schedule, {"warmup_steps": -1, **RATE}),
    (learning_rate_schedule, {"decay": "cosin", **RATE}),
    (make_optimizer, {"clip_norm": -1.0, **ADAM}),
]


@pytest.mark.parametrize(("make", "given"), WRONG)
def test_wrong_settings_are_refused(make, given):
    """In a sentence that begins with the first of them, and gives its value."""
    name, value = next(iter(given.items()))
    with pytest.raises(ValueError, match=f"^{name}={value!r} must (be|lie in) "):
        make(**given)
