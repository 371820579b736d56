"""The network for points in the plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.mlp import MLP

X = jax.random.normal(jax.random.key(0), (4, 3))
T = jnp.array([0.1, 0.4, 0.6, 0.9])
COND = {"label": jnp.array([0, 1, 1, -1]), "vector": jnp.arange(8.0).reshape(4, 2)}
NET = MLP(features=16, depth=2, num_classes=2, vectors=("vector",), out_channels=6)


def random_params(net):
    shapes = jax.eval_shape(net.init, jax.random.key(0), X, T, COND)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.3, a.shape), a.dtype), shapes)


@pytest.mark.slow
def test_it_starts_at_zero():
    params = NET.init(jax.random.key(0), X, T, COND)
    np.testing.assert_array_equal(NET.apply(params, X, T, COND), np.zeros((4, 6)))


@pytest.mark.parametrize("name", ["x", "t", "label", "vector"])
def test_the_output_of_a_point_depends_on_all_that_is_its_own(name):
    params = random_params(NET)
    inputs = {"x": X, "t": T, **COND}
    changed = {**inputs, name: inputs[name].at[1].set(inputs[name][2] + (name == "label") * -1)}

    def run(x, t, **cond):
        return NET.apply(params, x, t, cond)

    moved = np.abs(run(**inputs) - run(**changed)).max(axis=1)
    assert moved[1] > 1e-3
    np.testing.assert_array_equal(moved[[0, 2, 3]], 0)


def test_no_condition_is_a_label_of_minus_one_and_a_vector_of_zeros():
    params = random_params(NET)
    off = {"label": jnp.full(4, -1), "vector": jnp.zeros((4, 2))}
    np.testing.assert_array_equal(NET.apply(params, X, T, off), NET.apply(params, X, T, {}))


def test_it_computes_in_bfloat16_and_answers_in_float32():
    params = random_params(NET)
    coarse = NET.clone(dtype=jnp.bfloat16).apply(params, X, T, COND)
    fine = NET.apply(params, X, T, COND)
    assert coarse.dtype == fine.dtype == jnp.float32
    assert 1e-5 < np.abs(coarse - fine).max() / np.abs(fine).max() < 0.1
