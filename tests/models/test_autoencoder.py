"""The autoencoder's interface; its numbers are compared in `test_stable_diffusion.py`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.autoencoder import Autoencoder

SMALL = Autoencoder(channels=8, channel_mults=(1, 2), num_blocks=1, latent_channels=5)


def shapes_of(net, *sizes):
    """Shapes of parameters, of the moments of the latents, and of what the mean is decoded to."""

    def both(net, x):
        moments = net.encode(x)
        return moments, net.decode(moments[0])

    x = jax.ShapeDtypeStruct((2, *sizes, net.out_channels), jnp.float32)
    init = functools.partial(net.init_with_output, method=both)
    (moments, decoded), params = jax.eval_shape(init, jax.random.key(0), x)
    return params, moments, decoded


@pytest.mark.parametrize("sizes", [(10,), (4, 6), (2, 4, 2)])
def test_samples_have_any_number_of_axes(sizes):
    net = SMALL.clone(out_channels=1, dtype=jnp.bfloat16)
    assert net.factor == 2
    _, moments, decoded = shapes_of(net, *sizes)
    for part in moments:
        assert part.shape == (2, *(size // 2 for size in sizes), 5)
        assert part.dtype == jnp.float32
    assert (decoded.shape, decoded.dtype) == ((2, *sizes, 1), jnp.float32)


@pytest.mark.parametrize("sizes", [(8, 11), (5, 8)])
def test_sides_that_are_not_multiples_are_refused(sizes):
    size = "x".join(map(str, sizes))
    with pytest.raises(ValueError, match=f"size {size} must be multiples of 2: the 2 levels") as e:
        shapes_of(SMALL, *sizes)
    assert "\n" not in str(e.value)


def test_attention_can_be_left_out():
    with_it, without = (
        shapes_of(SMALL.clone(attention=attention), 4, 4)[0]["params"]
        for attention in (True, False)
    )
    for part in ("encoder", "decoder"):
        assert set(with_it[part]) - set(without[part]) == {"middle_attention"}


def test_groups_of_channels_are_even():
    with pytest.raises(ValueError, match="8 channels cannot be split into 3 groups evenly"):
        shapes_of(SMALL.clone(norm_groups=3), 4, 4)


def test_the_log_variance_is_clipped_to_what_can_be_exponentiated():
    net = Autoencoder(channels=4, channel_mults=(1,), num_blocks=1, latent_channels=3)
    params, _, _ = shapes_of(net, 2, 2)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params)
    biases = jnp.array([-1e3, 1.5, 1e3])
    params["params"]["encoder"]["quant_conv"]["bias"] = jnp.concatenate([biases, biases])
    mean, logvar = net.apply(params, jnp.ones((1, 2, 2, 3)), method="encode")
    np.testing.assert_array_equal(mean, np.broadcast_to(biases, mean.shape))
    np.testing.assert_array_equal(logvar, np.broadcast_to([-30.0, 1.5, 20.0], mean.shape))


@pytest.mark.slow
def test_gradients_are_the_same_if_blocks_are_recomputed():
    net = Autoencoder(channels=8, channel_mults=(1,), num_blocks=1)
    rng, (params, _, _) = np.random.default_rng(0), shapes_of(net, 4, 4)
    params = jax.tree.map(lambda a: 0.2 * rng.standard_normal(a.shape, np.float32), params)
    x = rng.standard_normal((1, 4, 4, 3), np.float32)

    def gradients(policy):
        recomputing = net.clone(remat=policy)
        loss = jax.grad(lambda params: jnp.sum(recomputing.apply(params, x) ** 2))
        assert ("remat" in str(jax.make_jaxpr(loss)(params))) == (policy != "none")
        return jax.jit(loss)(params)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    jax.tree.map(close, gradients("none"), gradients("full"))
