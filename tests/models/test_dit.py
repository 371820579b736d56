"""What DiT keeps and stacks for its backward pass, and the loop over its blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from diffusion_jax.models.dit import DiT, gelu_layer
from diffusion_jax.models.platform import computing_on

DEPTH = 3


def gradient(**settings):
    """`params -> gradient` of a small network in half precision, and parameters that are not 0."""
    net = DiT(hidden_size=32, depth=DEPTH, num_heads=2, dtype=jnp.bfloat16, **settings)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.2, 0.7])
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, {})["params"]
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.float32(0.2 * draw.normal(size=a.shape)), shapes)
    loss = lambda params: jnp.square(net.apply({"params": params}, x, t, {}) - 1).mean()  # noqa: E731
    return jax.grad(loss), params


def scans(fn, *args):
    """The loops of a function, at its top level and in what it calls there."""

    def of(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "scan":
                yield eqn
            for inner in core.jaxprs_in_params(eqn.params) if eqn.primitive.name != "scan" else ():
                yield from of(inner)

    return list(of(jax.make_jaxpr(fn)(*args).jaxpr))


@pytest.mark.slow
def test_parameters_cast_ahead_of_the_loop_have_the_same_gradients(monkeypatch):
    of, params = gradient()
    found = jax.jit(of)(params)
    monkeypatch.setattr(nn, "map_variables", lambda module, *args: module)
    jax.tree.map(np.testing.assert_array_equal, found, jax.jit(gradient()[0])(params))


def test_gradients_are_stacked_in_half_precision():
    stacked = [v.aval for loop in scans(*gradient()) for v in loop.outvars if v.aval.ndim > 1]
    kernels = [a for a in stacked if a.shape[0] == DEPTH and a.shape[-1] >= 32]
    assert kernels
    assert {a.dtype for a in kernels} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(("name", "unroll"), [("cpu", 1), ("tpu", 1), ("gpu", DEPTH)])
def test_blocks_are_unrolled_where_that_is_faster(name, unroll):
    with computing_on(name):
        of, params = gradient()
        assert {loop.params["unroll"] for loop in scans(of, params)} == {unroll}


@pytest.mark.parametrize(("name", "barrier"), [("cpu", False), ("gpu", True)])
def test_of_a_gelu_the_product_alone_is_kept(name, barrier):
    with computing_on(name):
        layer = gelu_layer(48, jnp.float32, None)
        params = layer.init(jax.random.key(0), jnp.ones((5, 4)))
        fn = lambda params, x: layer.apply(params, x)  # noqa: E731
        kept = jax.tree.leaves(jax.vjp(fn, params, jnp.ones((5, 4)))[1])
        assert [a.shape for a in kept].count((5, 48)) == 1
        text = str(jax.make_jaxpr(jax.grad(lambda p, x: fn(p, x).sum()))(params, jnp.ones((5, 4))))
    assert f"prevent_cse={barrier}" in text
    assert f"prevent_cse={not barrier}" not in text
