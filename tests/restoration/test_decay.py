"""Decay: seeded, per sample, nothing at severity 0, and a mask that tells what was destroyed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.restoration.decay import KINDS, Decay, RandomDecay, Window, random_fading
from diffusion_jax.restoration.image_conditions import Decayed
from diffusion_jax.restoration.textures import field, page, wander

TONE = {"blur", "fading", "silvering"}
SEVERITIES = np.repeat(np.array([0, 0.2, 0.5, 1], np.float32), 6)


def pictures(num: int, channels: int = 3) -> np.ndarray:
    shape = (num, 25, 32, channels)
    return np.random.default_rng(0).uniform(-0.8, 0.8, shape).astype(np.float32)


def keys(num: int, first: int = 0) -> jax.Array:
    return sample_keys(jax.random.key(0), jnp.arange(first, first + num))


QUICK = ("fading", "dust", "scratches")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in KINDS]
)
def test_kind(name: str) -> None:
    """Four severities of the same six pictures and keys."""
    x = np.tile(pictures(6), (4, 1, 1, 1))
    each = jax.jit(KINDS[name])
    found = each(x, jnp.tile(keys(6), 4), SEVERITIES)
    image, destroyed = map(np.asarray, found)
    np.testing.assert_array_equal(image[:6], x[:6])
    assert np.abs(image).max() <= 1
    assert set(np.unique(destroyed)) <= {0.0, 1.0}
    if name in TONE:
        assert destroyed.max() == 0
    else:
        np.testing.assert_array_equal(destroyed[..., 0] == 1, np.any(image != x, -1))
        shares = destroyed.reshape(4, -1).mean(1)
        assert np.all(np.diff(shares) > 0)
        assert 0.001 < shares[1] < shares[3] < 0.6
    change = np.abs(image - x).reshape(4, -1).mean(1)
    assert np.all(np.diff(change) > 0)
    # Each sample is that of its own key, wherever it is in the batch.
    order = np.random.default_rng(1).permutation(24)
    again = each(x[order], jnp.tile(keys(6), 4)[order], SEVERITIES[order])
    np.testing.assert_allclose(again.image, image[order], atol=1e-5)
    np.testing.assert_allclose(again.destroyed, destroyed[order], atol=1e-5)
    if name != "blur":  # whose pictures are noise
        assert len({row.tobytes() for row in image[18:] - x[18:]}) == 6


CHEAP = ("fading", "silvering", "mould")


@pytest.mark.slow
def test_kinds_together_on_grey_pictures() -> None:
    x, num = pictures(24, 1), 24
    whole = jax.jit(lambda x, keys: Decay(0.9, CHEAP)(x, keys))(x, keys(num))
    image, destroyed = map(np.asarray, whole)
    changed = np.any(image != x, (1, 2, 3))
    assert 0.6 < changed.mean() < 1  # 1 - 2^-3 are expected
    mouldy = destroyed.any((1, 2, 3))
    assert 0.2 < mouldy.mean() < 0.8
    only = ("fading",)
    clean, given = jax.jit(lambda x, k: (Decay(0.0, only)(x, k), Decayed(0.9, only)(x, k)))(
        x, keys(num)
    )
    np.testing.assert_array_equal(clean.image, x)
    np.testing.assert_array_equal(clean.destroyed, 0)
    still = ~mouldy & np.all(np.abs(given["image"] - image) < 1e-5, (1, 2, 3))
    assert still.sum() > 3  # where there is neither mould nor silvering


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 20, 33, 1), (2, 33, 20, 3)])
def test_all_kinds_take_any_size(shape: tuple[int, ...]) -> None:
    found = jax.eval_shape(Decay(1.0), jnp.zeros(shape), keys(2))
    assert [part.shape for part in found] == [shape, (*shape[:3], 1)]


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("kinds=('rust',) must be some of blur, fading")):
        Decay(0.5, ("rust",))(pictures(1), keys(1))
    with pytest.raises(ValueError, match=re.escape("severity=1.5 must lie in [0, 1]")):
        Decay(1.5)


def test_fading_is_its_operator() -> None:
    x, severity = pictures(3), jnp.array([0.0, 0.5, 1.0])
    operator = random_fading(keys(3), severity, 3)
    np.testing.assert_allclose(operator(x), KINDS["fading"](x, keys(3), severity)[0], atol=1e-6)
    np.testing.assert_allclose(operator.gain[0], 1)
    assert np.all(np.abs(operator.gain) + np.abs(operator.offset) <= 1 + 1e-6)  # stays on [-1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [32, 64])
def test_fields_and_lines_are_the_same_on_any_grid(pixels: int) -> None:
    """Variance 1, and the correlation at a distance, whatever the number of pixels."""
    on, size = page(pixels, 2 * pixels), 0.3
    made = jax.jit(jax.vmap(lambda key: field(key, on, size)))(keys(200))
    np.testing.assert_allclose(made.var(), 1, atol=0.08)
    near = np.mean(made[:, :, : -pixels // 16] * made[:, :, pixels // 16 :])
    # r K_1(r), r = 2 pi distance / size, is the transform of the power (1 + f^2 size^2)^-2.
    np.testing.assert_allclose(near, correlation(2 * np.pi / 16 / size), atol=0.05)
    lines = jax.jit(jax.vmap(lambda key: wander(key, on.at[0, :, 1])))(keys(400))  # a whole period
    np.testing.assert_allclose(lines.var(), 1, atol=0.15)


def correlation(r: float) -> float:
    return float(r * special.k1(r))


@pytest.mark.slow
def test_a_window_decays_as_a_part_of_its_photograph() -> None:
    """Of a kind without random fields, which are drawn on the pixels."""
    x, key = pictures(2)[:, :24, :24], keys(2)
    place = jnp.array([[0.0, 1.0], [5 / 72, 1 / 3]])  # of 96 - 24 = 72 pixels
    made = jax.jit(KINDS["scratches"])
    part = made(x, key, jnp.ones(2), Window(jnp.full(2, 4), place))
    corners, large = ((0, 72), (5, 24)), np.zeros((2, 96, 96, 3), np.float32)
    for number, (top, left) in enumerate(corners):
        large[number, top : top + 24, left : left + 24] = x[number]
    whole = made(large, key, jnp.ones(2))
    for found, want in zip(part, whole, strict=True):
        for number, (top, left) in enumerate(corners):
            cut = want[number, top : top + 24, left : left + 24]
            np.testing.assert_allclose(found[number], cut, atol=1e-4)
    assert 0.02 < part.destroyed.mean() < 0.9


@pytest.mark.slow
def test_severity_and_scale_are_drawn_for_each_sample() -> None:
    """Fading is linear in the severity, whose mean is a half; blur grows with the scale."""
    num, x = 1500, pictures(1)[:, :12, :12]

    def change(decay: Decay | RandomDecay, num: int) -> np.ndarray:
        whole = jax.jit(lambda keys: decay(jnp.broadcast_to(x, (num, *x.shape[1:])), keys))
        return np.abs(whole(keys(num)).image - x).mean((1, 2, 3))

    fading, blur = ("fading",), ("blur",)
    ratio = change(RandomDecay(0.8, 8.0, fading), num).mean()
    ratio /= change(Decay(0.8, fading), num).mean()
    assert abs(ratio - 0.5) < 0.08
    near, far = (change(RandomDecay(1.0, zoom, blur), 64).mean() for zoom in (1.0, 16.0))
    assert far > 2 * near
