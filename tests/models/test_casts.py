"""Parameters that are cast once, and give the bits of those that are cast at every use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.applied import Applied
from diffusion_jax.models.casts import read_as
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.unet import UNet
from diffusion_jax.system.keys import make_key

HALF = jnp.bfloat16
PARAMS = {name: jax.ShapeDtypeStruct((3, 4), jnp.float32) for name in "abcd"}


def test_only_what_is_read_in_one_other_precision_alone_is_cast():
    def fn(params, x):
        both = params["b"].astype(HALF) @ x + params["b"].sum().astype(HALF)
        inner = jax.checkpoint(lambda a: a.astype(HALF) @ x)(params["a"])
        one_by_one = jax.lax.scan(lambda y, row: (y + row.astype(HALF), None), x, params["c"])[0]
        return both, inner, one_by_one, params["d"]

    found = read_as(fn, PARAMS, jnp.zeros(4, HALF))
    assert found == {"a": HALF, "b": jnp.float32, "c": HALF, "d": jnp.float32}


NETWORKS = {
    "unet": UNet(channels=16, channel_mults=(1, 2), num_blocks=1, context_dim=8, dtype=HALF),
    "dit": DiT(hidden_size=16, depth=2, num_heads=2, num_classes=3, dtype=HALF),
}


@pytest.mark.parametrize("name", [pytest.param("unet", marks=pytest.mark.slow), "dit"])
def test_a_networks_outputs_stay_the_same_to_the_bit_and_norms_stay_in_float32(name):
    x = jax.random.normal(make_key(0), (2, 8, 8, 3))
    cond = {"text": jnp.ones((2, 3, 8)), "label": jnp.zeros(2, jnp.int32)}
    model = Applied(NETWORKS[name], (x, jnp.ones(2), cond))
    params = jax.tree.map(lambda a: a + 0.01, model.init(make_key(1)))
    ready = jax.jit(model.ready)(params)
    once, always = (jax.jit(model)(p, x, jnp.ones(2), cond) for p in (ready, params))
    np.testing.assert_array_equal(once, always)
    for path, leaf in jax.tree_util.tree_leaves_with_path(ready):
        norm = "norm" in jax.tree_util.keystr(path)
        assert leaf.dtype == (jnp.float32 if norm else HALF), path


def test_networks_in_float32_are_left_alone():
    x = jnp.zeros((1, 8, 8, 3))
    model = Applied(DiT(hidden_size=16, depth=1, num_heads=2), (x, jnp.ones(1), {}))
    params = {"any": object()}
    assert model.ready(params) is params
