"""Photographs of Debian packages, on small pictures at their places."""

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import DataError, load_dataset
from diffusion_jax.data.sets.photographs import PACKAGES, Patches

SIZE, SIDE = 8, 32  # of windows and of photographs at half their size, of 3 x 3 cells
NAMES = [f"{p.folder}/{one.file}" for p in PACKAGES.values() for one in p.photographs]

HELD_OUT = {
    *("Bridge_by_Sander_Klootwijk.jpg", "life_by_Aitzol_Berasategi.jpg"),
    *("Garden.jpg", "GreenMeadow.jpg", "RainDrops.jpg", "YellowFlower.jpg"),
    *("BytheWater", "ColdRipple", "EveningGlow", "FallenLeaf"),
}


def write(root, number, name):
    """A photograph of blocks of 2 x 2 pixels: place in red and green, its number in blue."""
    place = np.indices((SIDE, SIDE)) * 7
    pixels = np.stack([*place, np.full((SIDE, SIDE), number)], axis=-1).astype(np.uint8)
    noise = np.array([[1, -1], [-1, 1]])[:, :, None]  # which averages out
    blocks = np.kron(pixels.astype(int), np.ones((2, 2, 1), int))
    blocks[..., :2] += np.tile(noise, (SIDE, SIDE, 1))
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(blocks, 0, 255).astype(np.uint8)).save(path, "PNG")


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(NAMES):
        write(tmp_path, number, name)
    return tmp_path


def load(root, **options):
    settings = {"image_size": SIZE, "heldout_fraction": 0.2, **options}
    return load_dataset("photographs", manual_dir=str(root), **settings)


def test_photographs_are_in_one_split_and_averaged_over_two_by_two_pixels(root):
    dataset = load(root)
    seen = {}
    for key, split in dataset.splits.items():
        assert len(split) == 9 * len(split.source.names)
        items, labels = split.gather(np.arange(len(split)))
        assert items.shape == (len(split), SIZE, SIZE, 3)
        assert not labels.any()
        seen[key] = set(items[..., 2].ravel().tolist())
        for item, (number, top, left) in zip(items, split.source.cells, strict=True):
            whole = split.source.photographs[number]
            middle = slice(top + 4, top + 12), slice(left + 4, left + 12)
            np.testing.assert_array_equal(item, whole[middle])
            inner = np.s_[1:-1, 1:-1]  # where the noise cannot be clipped
            place = np.stack(np.mgrid[middle], axis=-1) * 7
            np.testing.assert_array_equal(item[inner][..., :2], place[inner])
    assert not seen["train"] & seen["heldout"]
    assert seen["train"] | seen["heldout"] == set(range(len(NAMES)))
    held = {name.split("/")[-4 if "wallpapers" in name else -1] for name in split.source.names}
    assert held == HELD_OUT  # others would have been trained on by networks that are published
    first = dataset.splits["heldout"].source.cells[:18, 0]
    assert len(set(first)) > 5  # a held-out loss of a few items is of many photographs


def test_draws_reach_every_window_once_and_the_middle_ones_do_not_overlap():
    pixels = np.random.default_rng(0).integers(0, 256, (19, 27, 3), np.uint8)
    source = Patches.of({"a": pixels}, 4)
    assert len(source) == 4 * 6
    draws = (np.arange(16, dtype=np.uint64) * np.uint64(2**32)) // np.uint64(16)
    windows = {
        item.tobytes()
        for row in range(len(source))
        for item in source.gather(np.full(16, row), draws)[0]
    }
    every = np.lib.stride_tricks.sliding_window_view(pixels, (4, 4), (0, 1))[:16, :24]
    assert windows == {w.transpose(1, 2, 0).tobytes() for w in every.reshape(-1, 3, 4, 4)}
    covered = np.zeros(pixels.shape[:2], int)
    for _, top, left in source.cells:
        covered[top + 2 : top + 6, left + 2 : left + 6] += 1
    assert covered.max() == 1


def test_flat_cells_are_left_out():
    """Cells reach over 7 pixels; only the first one sees the pixels that differ."""
    pixels = np.full((20, 20, 3), 90, np.uint8)
    pixels[:4, :4, 1] = np.random.default_rng(0).integers(0, 256, (4, 4))
    assert Patches.of({"a": pixels}, 4).cells.tolist() == [[0, 0, 0]]


def test_what_is_wrong_with_the_packages_is_named(root):
    with pytest.raises(DataError, match=r"image_size=64 .* leave no patch .* 32 pixels wide"):
        load(root, image_size=64)
    lost = "usr/share/backgrounds/mate/nature/Dune.jpg"
    (root / lost).write_bytes((root / lost).read_bytes()[:100])
    with pytest.raises(DataError, match=r"Dune\.jpg cannot be read: .*; install mate-backgrounds"):
        load(root)
    (root / lost).unlink()
    with pytest.raises(DataError, match=r"lacks 1 of .*Dune.*recommends mate-backgrounds` .*dpkg"):
        load(root)
