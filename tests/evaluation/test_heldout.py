"""The held-out loss, with a loss that returns its inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.evaluation.heldout import HeldoutLoss
from diffusion_jax.generation.labels import by_label
from diffusion_jax.training.state import create_state
from tests.runs import random_dataset

SIZE = 8


def given(params, batch, context):
    ones = jnp.ones(len(batch["x"]))
    return params * ones, {
        "drawn": jax.random.uniform(context.key) * ones,
        "step": context.step * ones,
        "average": context.ema["slow"] * ones,
        "teacher": context.frozen["teacher"] * ones,
    }


def test_the_loss_is_given_the_step_the_averages_and_what_is_frozen() -> None:
    dataset = random_dataset()
    heldout = HeldoutLoss(given, dataset, by_label(10), SIZE)
    state = create_state(jnp.array(3.0), optax.sgd(0.1), ["slow"])
    state = state._replace(step=jnp.array(7), ema={"slow": jnp.array(5.0)})
    for teacher in (11.0, 13.0):
        found = heldout(jnp.array(2.0), state, {"teacher": jnp.array(teacher)})
        batches = -(-len(dataset.splits["heldout"]) // SIZE)
        draws = [float(jax.random.uniform(jax.random.key(i))) for i in range(batches)]
        assert found.pop("heldout/drawn") == pytest.approx(np.mean(draws), rel=1e-5)
        assert found == {
            "heldout/loss": 2,
            "heldout/step": 7,
            "heldout/average": 5,
            "heldout/teacher": teacher,
        }
