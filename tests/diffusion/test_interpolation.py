"""Linear interpolation, and that no lookup within a sampler's loop has an index."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.interpolation import linear
from diffusion_jax.diffusion.langevin import Langevin
from diffusion_jax.diffusion.schedules import DDPM, ScaledLinear, Shifted

POINTS = np.array([-2.0, -1.5, 0.25, 3.0])
VALUES = np.array([1.0, -4.0, 2.0, 2.5])


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_as_numpy(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).uniform(-3, 4, shape).astype(np.float32)
    found = linear(jnp.asarray(x), POINTS, VALUES)
    assert found.shape == shape
    np.testing.assert_allclose(found, np.interp(x, POINTS, VALUES), rtol=2e-6, atol=2e-6)


def test_exact_at_the_points_and_constant_beyond() -> None:
    np.testing.assert_array_equal(linear(jnp.asarray(POINTS), POINTS, VALUES), VALUES)
    found = linear(jnp.array([-jnp.inf, -9.0, 9.0, jnp.inf, jnp.nan]), POINTS, VALUES)
    np.testing.assert_array_equal(found, [1.0, 1.0, 2.5, 2.5, np.nan])


def test_derivative() -> None:
    slope = jax.grad(lambda x: linear(x, POINTS, VALUES))
    assert slope(jnp.array(0.0)) == pytest.approx(6 / 1.75)
    assert slope(jnp.array(5.0)) == slope(jnp.array(jnp.inf)) == 0


def primitives(jaxpr: Any) -> Iterator[str]:
    """Names, those of inner functions and loops included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                yield from primitives(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(
    "lookup",
    [Langevin().angle, DDPM().logsnr, ScaledLinear().time_at, Shifted(DDPM(), 2.0).time_at],
    ids=["langevin", "ddpm", "scaled_linear", "shifted"],
)
def test_tables_are_read_without_an_index(lookup: Any) -> None:
    """Where one depends on a loop within a scan, XLA does not compile for GPUs."""
    found = set(primitives(jax.make_jaxpr(lookup)(jnp.array(0.5)).jaxpr))
    assert "reduce_sum" in found
    assert not found & {"gather", "dynamic_slice", "dynamic_update_slice"}
