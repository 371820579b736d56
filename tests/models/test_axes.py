"""Networks and their layers on signals, images and volumes: [B, T, C], [B, H, W, C] and more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import dit
from diffusion_jax.models.dit import DiT, position_embedding, rotated, rotation_of
from diffusion_jax.models.layers import (
    Conv,
    GroupNorm,
    beside,
    downsample,
    patchify,
    unpatchify,
    upsample,
)
from diffusion_jax.models.products import plain_conv
from diffusion_jax.models.unet import UNet

T = jnp.array([0.1, 0.9])


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def random_params(net, *args):
    shapes = jax.eval_shape(net.init, jax.random.key(0), *args)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: 0.3 * rng.standard_normal(a.shape, np.float32), shapes)


@pytest.mark.parametrize("sizes", [(12,), (4, 6), (2, 4, 6)])
def test_patches_and_resampling(sizes):
    x = draw(2, *sizes, 3)
    patches = patchify(x, 2)
    assert patches.shape == (2, *(n // 2 for n in sizes), 2 ** len(sizes) * 3)
    np.testing.assert_array_equal(unpatchify(patches, 2), x)
    last = x[(slice(None), *(slice(n - 2, n) for n in sizes))]
    np.testing.assert_array_equal(patches[(slice(None), *[-1] * len(sizes))], last.reshape(2, -1))
    values = patches.reshape(*patches.shape[:-1], -1, 3)
    np.testing.assert_allclose(downsample(x), values.mean(-2), atol=1e-6)
    large = upsample(x)
    np.testing.assert_allclose(downsample(large), x, atol=1e-6)
    np.testing.assert_array_equal(large, jax.image.resize(x, large.shape, "nearest"))


def test_an_axis_of_one_place_changes_no_layer():
    x = draw(2, 9, 8)
    norm = {"params": {"scale": jnp.arange(8.0), "bias": jnp.ones(8)}}
    flat = GroupNorm().apply(norm, x[:, :, None])[:, :, 0]
    np.testing.assert_allclose(GroupNorm().apply(norm, x), flat, atol=1e-6)
    kernel = draw(3, 8, 5)
    row = plain_conv(x[:, None], kernel[None])[:, 0]
    np.testing.assert_allclose(plain_conv(x, kernel), row, atol=1e-5)
    conv = {"params": {"kernel": kernel, "bias": jnp.arange(5.0)}}
    np.testing.assert_allclose(Conv(5).apply(conv, x), row + jnp.arange(5.0), atol=1e-5)


@pytest.mark.parametrize("sizes", [(8,), (4, 6), (2, 4, 6)])
def test_a_condition_lies_beside_samples_of_the_same_axes(sizes):
    x, image = draw(2, *sizes, 1), draw(2, *sizes, 2)
    image[1] = 0
    flat = beside(x, {"image": image}, 2).reshape(2, -1, 4)
    np.testing.assert_array_equal(flat[..., :3], np.concatenate([x, image], -1).reshape(2, -1, 3))
    np.testing.assert_array_equal(flat[..., 3], np.array([1, 0])[:, None] + 0 * flat[..., 3])


@pytest.mark.parametrize(
    ("sizes", "changes"), [((4, 8), {}), ((8,), {"resblock_updown": True, "context_dim": 3})]
)
@pytest.mark.slow
def test_a_unet_along_an_axis_on_which_nothing_varies(sizes, changes):
    """With kernels that do not look along the last axis, it is the UNet of one axis less."""
    net = UNet(8, (1, 2), 1, (0,), dropout=0.0, image_channels=2, out_channels=3, **changes)
    x, image, text = draw(2, *sizes, 3), draw(2, *sizes, 2), draw(2, 4, 3)
    params = random_params(net, x, T, {"text": text})

    def widened(leaf):
        if leaf.ndim != len(sizes) + 2:
            return leaf
        wide = np.zeros((*leaf.shape[:-2], leaf.shape[0], *leaf.shape[-2:]), np.float32)
        wide[..., leaf.shape[0] // 2, :, :] = leaf
        return wide

    apply = jax.jit(net.apply)
    y = apply(params, x, T, {"image": image, "text": text})
    assert y.shape == x.shape
    wide_x, wide_image = (np.repeat(a[..., None, :], 4, axis=-2) for a in (x, image))
    wide = apply(jax.tree.map(widened, params), wide_x, T, {"image": wide_image, "text": text})
    assert np.abs(y).max() > 0.1
    for place in range(4):
        np.testing.assert_allclose(wide[..., place, :], y, rtol=1e-3, atol=1e-4)


def test_a_dit_without_positions_sees_no_axes(monkeypatch):
    monkeypatch.setattr(dit, "position_embedding", lambda sizes, features: jnp.zeros(features))
    net = DiT(1, 16, 2, 2)
    x = draw(2, 24, 3)
    params = random_params(net, x, T, {})
    y = net.apply(params, x, T, {})
    assert y.shape == x.shape
    for sizes in ((4, 6), (2, 3, 4)):
        found = net.apply(params, x.reshape(2, *sizes, 3), T, {})
        np.testing.assert_allclose(found, y.reshape(found.shape), rtol=1e-4, atol=1e-4)


def test_a_dit_of_one_axis_tells_the_places_apart():
    net = DiT(2, 16, 2, 2)
    x = draw(2, 12, 3)
    params = random_params(net, x, T, {})
    y = net.apply(params, x, T, {})
    assert y.shape == x.shape
    moved = net.apply(params, np.roll(x, 2, axis=1), T, {})
    assert np.abs(moved - np.roll(y, 2, axis=1)).max() > 1e-3
    with pytest.raises(ValueError, match=r"size 13 .*model.dit.patch_size=2"):
        random_params(net, draw(2, 13, 3), T, {})
    with pytest.raises(ValueError, match="use 'mlp' for vectors"):
        random_params(net, draw(2, 2), T, {})
    with pytest.raises(ValueError, match=r"model.dit.hidden_size=16 must be a multiple of 6"):
        random_params(net, draw(2, 2, 2, 2, 3), T, {})


def test_positions_of_one_and_three_axes():
    one = position_embedding((3,), 4)
    np.testing.assert_allclose(one[2], [*np.sin([2, 0.02]), *np.cos([2, 0.02])], atol=1e-6)
    table = position_embedding((2, 3, 4), 12).reshape(2, 3, 4, 3, 2, 2)  # axis, sin/cos, freq
    for axis, place in enumerate((3, 2, 1)):  # the last axis comes first
        angles = np.array([place, place / 100])
        np.testing.assert_allclose(
            table[1, 2, 3, axis], [np.sin(angles), np.cos(angles)], atol=1e-6
        )


@pytest.mark.parametrize("sizes", [(12,), (3, 4)])
def test_products_of_rotated_queries_and_keys_depend_on_distances(sizes):
    """Of one axis and of two; a query and a key of equal places have the product that they had."""
    heads, num = 2, np.prod(sizes)
    rotation = rotation_of(sizes, 8)
    q, k = (
        rotated(jnp.tile(draw(1, 1, 8 * heads), (1, num, 1)), rotation, heads) for _ in range(2)
    )
    products = np.einsum("ihc,jhc->ijh", q.reshape(num, heads, 8), k.reshape(num, heads, 8))
    places = np.indices(sizes).reshape(len(sizes), -1).T
    distances = (places[:, None] - places).reshape(num**2, -1)
    _, which = np.unique(distances, axis=0, return_inverse=True)
    products = products.reshape(num**2, heads)
    first = np.array([products[which == number][0] for number in range(which.max() + 1)])
    np.testing.assert_allclose(products, first[which], atol=1e-5)
    assert first.std(0).min() > 0.1
    np.testing.assert_allclose(jnp.sum(q * q, -1), float(jnp.sum(q[0, 0] ** 2)), rtol=1e-5)


def test_a_rotary_head_of_two_features():
    """A rotation by the place: (1, 0) becomes its cosine and sine."""
    x = jnp.tile(jnp.array([1.0, 0.0]), (1, 5, 1))
    found = rotated(x, rotation_of((5,), 2), 1)[0]
    np.testing.assert_allclose(found.T, [np.cos(range(5)), np.sin(range(5))], atol=1e-6)
    with pytest.raises(ValueError, match=r"hidden_size / model.dit.num_heads=3 must be a multiple"):
        rotation_of((5,), 3)
