import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.restoration.tiles import tiled
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, karras_times, keys_of

FLOW = SCHEDULES["flow"]

CASES = {"images": (10, 17), "just larger": (9, 8), "one tile": (8, 8), "sound": (21,)}


def smooth(radius):
    """A denoiser that sees entries up to `radius` away, and conditioning of either kind."""

    def denoise(x_t, t, cond):
        kernel = jnp.asarray(np.random.default_rng(0).normal(size=2 * radius + 1))
        x = x_t * cond["weight"]
        for axis in range(1, x.ndim - 1):
            line = functools.partial(jnp.convolve, mode="same")
            x = jnp.apply_along_axis(line, axis, jnp.tanh(x), kernel)
        shift = (t + cond["shift"]).reshape(-1, *(1,) * (x.ndim - 1))
        return Denoised(x + shift, jnp.abs(x))

    return denoise


def inputs(sides):
    rng = np.random.default_rng(1)
    x_t, weight = rng.normal(size=(2, *sides, 2)), rng.normal(size=(2, *sides, 1))
    cond = {"weight": jnp.asarray(weight), "shift": jnp.array([0.3, -0.2])}
    return jnp.asarray(x_t), jnp.array([0.1, 0.7]), cond


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_once"), [*((name, 1) for name in CASES), ("images", 3)])
def test_equal_to_one_piece_if_local(x64, name, at_once):
    """Values, variances and gradients, for a radius of `overlap // 4`; not for a larger one."""
    x_t, t, cond = inputs(CASES[name])

    def both(radius):
        @functools.partial(jax.jit, static_argnums=0)
        def run(is_tiled):
            denoise = smooth(radius)
            denoise = tiled(denoise, 8, 5, at_once) if is_tiled else denoise
            found, pull = jax.vjp(lambda x: denoise(x, t, cond), x_t)
            return found, pull(jax.tree.map(jnp.ones_like, found))

        return [jax.tree.leaves(run(is_tiled)) for is_tiled in (True, False)]

    for found, expected in zip(*both(1), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    if name != "one tile":
        found, expected = (leaves[0] for leaves in both(3))
        assert np.max(np.abs(found - expected)) > 1e-3


@pytest.mark.parametrize("overlap", [0, 1, 5, 7])
def test_weights_sum_to_one(x64, overlap):
    x_t, t, cond = inputs((29,))
    x_0 = tiled(lambda x, t, cond: Denoised(x), 8, overlap)(x_t, t, cond).x_0
    np.testing.assert_allclose(x_0, x_t, rtol=1e-14)


def test_tiles_that_disagree_are_blended_smoothly(x64):
    """Tiles from 0 and from 4, each with the value of its first entry."""
    x_t, t, cond = inputs((12,))
    x_0 = tiled(lambda x, t, cond: Denoised(0 * x + x[:, :1]), 8, 4)(x_t, t, cond).x_0
    rise = np.sin(np.pi / 8) ** 2
    share = np.array([0, 0, 0, 0, 0, rise, 1 - rise, 1, 1, 1, 1, 1])[:, None]
    np.testing.assert_allclose(x_0, (1 - share) * x_t[:, :1] + share * x_t[:, 4:5], rtol=1e-12)


def test_samples_have_no_seams():
    """A stationary law, by exact denoisers of tiles: increments vary at seams as elsewhere.

    Correlations reach beyond the overlap: increments vary by 11% more in its middle, and without
    overlap 16 times as much. A standard error is 2%.
    """
    side, size, num = 56, 32, 4000
    values, vectors = np.linalg.eigh(_covariance(size))
    values = np.maximum(values, 0)

    def exact(x_t, t, cond):
        alpha, sigma = (c[:, None] for c in FLOW.scales(t))
        gain = alpha * values / (alpha**2 * values + sigma**2)
        return Denoised((gain * (x_t[..., 0] @ vectors) @ vectors.T)[..., None])

    @functools.partial(jax.jit, static_argnums=1)
    def ratio(x_T, overlap):
        denoise = tiled(exact, size, overlap)
        x = sample(denoise, heun(FLOW), karras_times(20), x_T, {}, keys_of(num))[0][..., 0]
        return jnp.var(jnp.diff(x, axis=1), axis=0) / (2 - 2 * _covariance(2)[0, 1])

    x_T = np.random.default_rng(0).normal(size=(num, side, 1))
    assert np.max(np.abs(ratio(x_T, 8) - 1)) < 0.18
    assert np.max(ratio(np.concatenate([x_T, x_T[:, :8]], axis=1), 0)) > 10


def _covariance(num):
    return np.exp(-((np.abs(np.subtract.outer(np.arange(num), np.arange(num))) / 6) ** 1.5))


def test_smaller_than_a_tile_is_refused():
    with pytest.raises(ValueError, match="size=8 of tiles is larger than the data, 10 x 7"):
        tiled(smooth(1), 8, 4)(*inputs((10, 7)))
    with pytest.raises(ValueError, match="overlap=8 must lie in"):
        tiled(smooth(1), 8, 8)


def test_memory_of_the_network_does_not_grow_with_the_picture():
    """Of gradients: an array of the picture's size some 16 times, and no activations."""

    def network(x_t, t, cond):
        for kernel in [np.full((3, 3, *io), 0.01, np.float32) for io in ((3, 128), (128, 3))]:
            numbers = ("NHWC", "HWIO", "NHWC")
            x_t = jnp.tanh(
                jax.lax.conv_general_dilated(x_t, kernel, (1, 1), "SAME", None, None, numbers)
            )
        return Denoised(x_t)

    def growth(denoise):
        """Bytes per byte of a larger picture."""

        def loss(x):
            return jnp.sum(denoise(x, jnp.ones(1), {}).x_0 ** 2)

        def needed(side):
            x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
            return jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis().temp_size_in_bytes

        return (needed(256) - needed(64)) / (4 * 3 * (256**2 - 64**2))

    assert growth(tiled(network, 32, 8)) < 20
    assert growth(network) > 60
