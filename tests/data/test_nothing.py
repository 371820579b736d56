"""The data set without data."""

import pytest

from diffusion_jax.data import DataError, load_dataset


def test_it_has_a_shape_texts_and_no_items():
    found = load_dataset("none", shape=(16, 24, 3))
    assert found.kind.words == "images of 16x24x3"
    assert found.captioned
    assert [len(split) for split in found.splits.values()] == [0, 0]


@pytest.mark.parametrize("shape", [(), (16, 16), (16, 0, 3), (16, 16, 4)])
def test_what_is_no_shape_of_a_picture_is_refused(shape):
    with pytest.raises(DataError, match=r"data\.shape=.* must be the height, width and channels"):
        load_dataset("none", shape=shape)
