"""Augmentation that a network is told of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from diffusion_jax.diffusion.conditioning import drop, unconditional
from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.objectives.augmentation import AUGMENT, TOLD, Augmentation, augmented
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Context
from tests.runs import random_dataset

ALL = Augmentation(0.7, True, 0.2, 40.0, 0.2, 0.1)
SHAPE = 256, 13, 15, 2
apply = jax.jit(lambda augment, x, keys: augment(x, keys), static_argnums=0)


def changed(x):
    return apply(ALL, x, jax.random.split(make_key(0), len(x)))


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_what_is_told_determines_what_was_done():
    """Bilinear interpolation is exact for an image that is linear in the place."""
    num, *sides, channels = SHAPE
    ends = (np.array(sides) - 1) / 2
    places = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"), -1) - ends
    slopes = np.random.default_rng(0).normal(size=(num, 2, channels)).astype(np.float32)
    x = np.einsum("hwi,bic->bhwc", places, slopes)
    moved, told = map(np.asarray, changed(x))
    assert moved.shape == x.shape
    assert told.shape == (num, TOLD)
    for image, (flip, scale, cosine, sine, *stretch, down, right), slope in zip(
        moved, told, slopes, strict=True
    ):
        turn = rotation(-np.arctan2(sine, cosine + 1))
        length, along = np.hypot(*stretch), np.arctan2(*stretch[::-1]) / 2
        stretches = rotation(along) @ np.diag([2.0**-length, 2.0**length]) @ rotation(-along)
        matrix = np.diag([1, 1 - 2 * flip]) @ stretches @ turn * 2.0**-scale
        seen = (places - sides * np.array([down, right])) @ matrix.T
        inside = np.all(np.abs(seen) < ends, axis=-1)
        assert inside.sum() > 20
        np.testing.assert_allclose(image[inside], (seen @ slope)[inside], atol=1e-4)


def test_an_image_of_which_nothing_is_told_is_as_it_was():
    x = jax.random.uniform(make_key(1), SHAPE)
    moved, told = changed(x)
    same = ~np.any(told, axis=1)
    # Of no change, 0.3 each; a flip is none half of the time.
    assert abs(same.mean() - 0.3**4 * 0.65) < 0.02
    np.testing.assert_array_equal(moved[same], x[same])
    assert np.all(np.any(np.asarray(moved != x)[~same], axis=(1, 2, 3)))


def test_a_flip_mirrors_left_and_right():
    x, keys = jax.random.uniform(make_key(1), (8, 4, 6, 2)), jax.random.split(make_key(0), 8)
    moved, told = apply(Augmentation(1.0, True, 0.0, 0.0, 0.0, 0.0), x, keys)
    mirrored = told[:, 0] == 1
    assert 0 < mirrored.sum() < 8
    expected = jnp.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch():
    x, keys = jax.random.uniform(make_key(1), SHAPE), jax.random.split(make_key(0), SHAPE[0])
    backwards = apply(ALL, x[::-1], keys[::-1])[0]
    np.testing.assert_array_equal(backwards[::-1], changed(x)[0])


def test_the_loss_is_told_and_no_dropout_hides_it():
    def loss(params, batch, context):
        return jnp.zeros(len(batch["x"])), batch

    x = jax.random.uniform(make_key(1), (4, 4, 6, 1))
    batch = {"x": x, "cond": {"label": jnp.arange(4)}, "index": jnp.arange(4)}
    context = Context(make_key(5), jnp.array(0), {}, {})
    augment = Augmentation(1.0, False, 0.0, 90.0, 0.0, 0.0)
    _, seen = jax.jit(augmented(augment, loss))({}, batch, context)
    assert not np.any(np.all(seen["x"] == x, axis=(1, 2, 3)))
    told = seen["cond"][AUGMENT]
    np.testing.assert_allclose((told[:, 2] + 1) ** 2 + told[:, 3] ** 2, 1.0, rtol=1e-5)
    for dropped in (
        drop(seen["cond"], jax.random.split(make_key(2), 4), 1.0),
        unconditional(seen["cond"]),
    ):
        np.testing.assert_array_equal(dropped[AUGMENT], told)
        np.testing.assert_array_equal(dropped["label"], -1)


def test_samples_and_the_held_out_loss_are_of_unchanged_images():
    config = digits.get_config()
    config.objective.augment.probability = 0.5
    task = build(config, random_dataset((8, 8, 1))).task
    np.testing.assert_array_equal(task.cond[AUGMENT], np.zeros((1, TOLD)))
    assert task.loss.__name__ == "of_augmented"
    assert not hasattr(task.heldout_loss, "__name__")


def test_data_without_pixels_are_refused():
    config = digits.get_config()
    config.model.name = "mlp"
    config.objective.augment.probability = 0.5
    with pytest.raises(ConfigError, match=r"augment\.probability='0\.5' goes with images"):
        build(config, random_dataset((2,)))
