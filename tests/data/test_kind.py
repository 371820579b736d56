"""Kinds of data items: storing and decoding, mirroring, writing and showing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import ArraySource, DataError, Dataset, Images, Kind, Split, train_batches
from diffusion_jax.training.step import of_stored


def points():
    """A data set of continuous items, of the base kind."""
    items = np.linspace(-3, 3, 24, dtype=np.float32).reshape(8, 3)
    split = Split(ArraySource(items, np.zeros(8, np.int32)))
    return Dataset("points", Kind((3,)), {"train": split}), items


def test_images_are_decoded_to_floats_and_encoded_back():
    kind, items = Images((16, 16, 1)), np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = kind.decode(items)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, items / 127.5 - 1, atol=1e-6)
    assert abs(x).max() == kind.limit
    assert len(np.unique(x)) == kind.levels
    np.testing.assert_allclose(np.diff(np.unique(x)), 2 / (kind.levels - 1), rtol=1e-5)
    assert kind.encode(x).dtype == kind.stored
    np.testing.assert_array_equal(kind.encode(x), items)
    np.testing.assert_array_equal(kind.encode(np.array([-7.0, 7.0])), [0, 255])


def test_images_are_mirrored_where_the_coins_say_so():
    items = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 2), np.uint8)
    coins = np.array([True, False, True, False])
    found = Images((3, 5, 2)).mirrored(items.copy(), coins)
    expected = np.stack([items[0, :, ::-1], items[1], items[2, :, ::-1], items[3]])
    np.testing.assert_array_equal(found, expected)
    assert (found[coins] != items[coins]).any()


def test_kinds_are_named_by_noun_and_shape():
    assert Images((8, 8, 1)).words == "images of 8x8x1"
    assert Kind((3,)).words == "items of 3"


def test_items_of_the_base_kind_are_floats_as_they_are():
    dataset, items = points()
    kind = dataset.kind
    assert (kind.levels, kind.limit) == (0, None)
    np.testing.assert_array_equal(kind.decode(items), items)
    np.testing.assert_array_equal(kind.encode(kind.decode(items)), items)
    assert kind.encode(np.ones(3)).dtype == kind.decode(np.ones(3)).dtype == np.float32
    batch = next(train_batches(dataset, batch_size=8, seed=0))
    assert batch["cond"] == {}
    np.testing.assert_array_equal(np.sort(batch["x"], axis=0), items)


def test_items_of_the_base_kind_cannot_be_mirrored():
    """Which is said before the first batch is made."""
    dataset, items = points()
    with pytest.raises(DataError, match=r"data\.flip=True mirrors images, .* items of 3\."):
        dataset.kind.mirrored(items, np.ones(8, bool))
    with pytest.raises(DataError, match=r"data\.flip=True"):
        train_batches(dataset, batch_size=2, seed=0, flip=True)


def test_images_are_saved_under_their_numbers_with_how_they_were_made(tmp_path):
    items = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    Images((4, 4, 3)).save(tmp_path, np.array([7, 12]), items, [{"seed": 1}, {"seed": 2}])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000007.png", "000012.png"]
    for number, image, seed in zip((7, 12), items, (1, 2), strict=True):
        with Image.open(tmp_path / f"{number:06d}.png") as found:
            np.testing.assert_array_equal(np.asarray(found), image)
            assert str(seed) in found.info["made_by"]


def test_bytes_that_a_step_decodes_have_the_bits_of_those_decoded_before():
    kind, items = Images((16, 16, 1)), np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)

    def loss(params, batch, context):  # sums and products that a compiler would fuse
        x = params * batch["x"] - 0.3 * jnp.roll(batch["x"], 1, 1) + 1e-3
        return jnp.square(x - batch["x"]), {}

    both = jax.jit(of_stored(kind.decode, loss)), jax.jit(loss)
    inputs = jnp.asarray(items), jnp.asarray(kind.decode(items))
    found, expected = (fn(0.7, {"x": x}, None)[0] for fn, x in zip(both, inputs, strict=True))
    np.testing.assert_array_equal(found, expected)
