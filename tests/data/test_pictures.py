"""Odd image files, in all places where images are read."""

import os
import struct

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import DataError, load_dataset, open_image
from diffusion_jax.data import images as module
from diffusion_jax.data.images import look_at, read_image

ENTRY = struct.pack(">HHHI", 1, 0x0112, 5, 1)  # an orientation that is a fraction
EXIF = {
    "a fraction": b"Exif\0\0MM\0*\0\0\0\x08" + ENTRY + b"\0\0",
    "letters": b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"abc", 0),
    "out of the file": b"Exif\0\0II*\0\xff\xff\0\0",
}


@pytest.mark.parametrize("exif", EXIF.values(), ids=EXIF)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_that_is_not_a_number_turns_nothing(tmp_path, exif, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (16, 8), (200, 0, 0)).save(path, exif=exif)
    assert look_at(path, 0)[:2] == (8, 16)
    assert read_image(path, 0).shape == (8, 16, 3)
    dataset = load_dataset("folder", data_dir=str(tmp_path), heldout_fraction=0)
    assert (len(dataset.splits["train"]), dataset.skipped) == (1, ())


SIDES = (  # of the picture as it is seen, at which the first row and the first column are (EXIF)
    *("top left", "top right", "bottom right", "bottom left"),
    *("left top", "right top", "right bottom", "left bottom"),
)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_read_upright_from_all_formats(tmp_path, suffix, orientation):
    """Of a picture that is white at its top left when it is looked at."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = np.zeros((64, 96, 3), np.uint8)
    seen[:32, :48] = 255
    stored = seen.swapaxes(0, 1) if orientation >= 5 else seen
    for axis, side in enumerate(SIDES[orientation - 1].split()):
        stored = np.flip(stored, axis) if side in ("bottom", "right") else stored
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert look_at(path, 0) == (64, 96, True)
    image = read_image(path, 0)
    assert image.shape == (64, 96, 3)
    assert image[8, 8].min() > 200
    assert max(image[56, 8].max(), image[8, 80].max(), image[56, 80].max()) < 60


def odd_files(folder):
    """Files that are no pictures, and what is said of each."""
    (folder / "empty.png").touch()
    (folder / "text.gif").write_text("no picture")
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.jpg")
    Image.new("RGB", (40, 40)).save(folder / "cut.png")
    whole = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) - 30])
    Image.new("1", (300, 300)).save(folder / "large.png")
    Image.new("RGB", (1, 200)).save(folder / "thin.png")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "floats.tif")
    return {
        "empty.png": "it is empty",
        "text.gif": "it is no picture",
        "folder.png": "it is a folder",
        "link.png": "No such file or directory",
        "pipe.jpg": "it is not a file",
        "cut.png": "truncated|broken",
        "large.png": "300 x 300 pixels are more than 256 x 256",
        "thin.png": "1 x 200 pixels are too long and thin to be made 32 wide",
        "floats.tif": "pixels of mode F have no known range",
    }


def test_odd_files_are_named_where_asked_for_and_skipped_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 2**16)
    expected = odd_files(tmp_path)
    for name, words in expected.items():
        with pytest.raises(DataError, match=rf"{name} cannot be read: .*({words})") as error:
            open_image(tmp_path / name, (32, 32, 3))
        assert "\n" not in str(error.value)
    Image.new("RGB", (40, 40), (9, 0, 0)).save(tmp_path / "whole.png")
    dataset = load_dataset("folder", data_dir=str(tmp_path), image_size=32, heldout_fraction=0)
    assert set(dataset.skipped) == set(expected) - {"folder.png"}
    assert "skipped 8 unreadable files: cut.png (" in dataset.notes[0]


@pytest.mark.slow
def test_large_photographs_are_read(tmp_path):
    Image.new("L", (14_000, 14_000), 200).save(tmp_path / "large.png")
    assert (open_image(tmp_path / "large.png", (8, 8, 1)) == 200).all()


def test_a_picture_that_changed_later_is_named(tmp_path):
    for i in range(2):
        Image.new("RGB", (8, 8), (9, 0, 0)).save(tmp_path / f"{i}.png")
    dataset = load_dataset("folder", data_dir=str(tmp_path), memory=False, heldout_fraction=0)
    Image.new("RGB", (9, 8)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1\.png has changed: it is now of 8 x 9 pixels"):
        dataset.arrays("train")
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png cannot be read: No such file"):
        dataset.arrays("train")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_the_first_of_moving_pictures_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (abs(read_image(path, 0).astype(int) - (250, 0, 0)) < 9).all()
    assert look_at(path, 0) == (16, 16, False)
