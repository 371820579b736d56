"""Restoration at the command line: what is known stays, and what does not fit is said."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import run
from diffusion_jax.data import Images, to_float
from diffusion_jax.from_config.restoration import observe
from diffusion_jax.restoration.image_conditions import Masked, observed_image
from diffusion_jax.system.pictures import read_made_by
from tests.oracles import keys_of
from tests.runs import tiny

KEYS = keys_of(1)
FOUND = "gain", "offset", "width", "sigma"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with a trained run of 8x8 digits."""
    folder = tmp_path_factory.mktemp("restored") / "run"
    assert run.run(tiny(train__steps=2, train__checkpoint_every=2), folder, "train") == 0
    return folder


def picture(path: Path, *shape: int, seed: int = 0) -> Path:
    """A picture of noise."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


def mask(path: Path, lost: np.ndarray) -> Path:
    Image.fromarray(np.where(lost, 255, 0).astype(np.uint8)).save(path)
    return path


def restore(folder: Path, of: Path, **settings: Any) -> int:
    config = tiny(train__steps=2, train__checkpoint_every=2)
    few = {
        "restore.image": str(of),
        "restore.num_samples": 3,
        "sample.steps": 3,
        "restore.mmps.iterations": 1,
    }
    given = {f"restore.{key.replace('__', '.')}": value for key, value in settings.items()}
    config.update_from_flattened_dict({**few, **given})
    return run.run(config, folder, "restore")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("sides", "method"),
    [
        ((8, 8), "mmps"),
        pytest.param((8, 8), "repaint", marks=pytest.mark.slow),
        ((5, 7), "pigdm"),
        pytest.param((3, 9), "repaint", marks=pytest.mark.slow),
        pytest.param((13, 18), "dps", marks=pytest.mark.slow),
    ],
)
def test_known_pixels_of_pictures_of_any_size_stay_as_they_are(
    folder: Path, tmp_path: Path, sides: tuple[int, int], method: str
) -> None:
    image = picture(tmp_path / "old.png", *sides)
    lost = np.zeros(sides, bool)
    lost[1:4, 2:5] = True
    masked = mask(tmp_path / "mask.png", lost)
    assert restore(folder, image, method=method, mask__image=str(masked)) == 0
    out = folder / "samples" / "restored" / "old.png"
    samples = [pixels(out / f"{i:06d}.png") for i in range(3)]
    for sample in (*samples, pixels(out / "mean.png")):
        np.testing.assert_array_equal(sample[~lost], pixels(image)[~lost])
    assert np.mean(samples[0][lost] != samples[1][lost]) > 0.5
    spread = pixels(out / "spread.png")
    assert not spread[~lost].any()
    assert spread[lost].any()
    assert pixels(out / "sheet.png").ndim == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("identity", "ddnm"),
        ("blur", "diffpir"),
        ("downscale", "ddrm"),
        ("fading", "split_gibbs"),
        ("gamma", "daps"),
        ("clipping", "tmpd"),
        ("jpeg", "mmps"),
        ("halftone", "twisted"),
    ],
)
def test_simulated_damage_is_restored_and_compared(
    operator: str, method: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = picture(tmp_path / "whole.png", 8, 8)
    settings = {"sample.sampler": "ancestral"}
    config = tiny(train__steps=2, train__checkpoint_every=2, restore__image=str(image))
    config.update_from_flattened_dict(settings)
    config.restore.update(operator=operator, method=method, sigma=0.1, simulate=True, num_samples=4)
    config.sample.steps = 3
    assert run.run(config, folder, "restore") == 0
    said = capsys.readouterr().out
    assert "4 samples of step 2" in said
    noise = re.search(r"noise of the observation (\d\.\d+)", said)
    assert noise
    assert abs(float(noise[1]) - 0.1) < 0.03
    assert ("worth" in said) <= (method == "twisted")


@pytest.mark.slow
def test_damage_is_found_blind(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a picture that is larger and one that is smaller than the network's, with a mask."""
    for sides in ((13, 18), (5, 7)):
        image, lost = picture(tmp_path / "old.png", *sides), np.zeros(sides, bool)
        lost[1:4, 2:5] = True
        settings = {"operator": "fading+blur+mask", "blind.rounds": 2, "blind.windows": 2}
        masked = str(mask(tmp_path / "mask.png", lost))
        assert restore(folder, image, mask__image=masked, sigma=0.1, **settings) == 0
        said = capsys.readouterr().out
        number = r"-?[\d.e-]+"
        each = ", ".join(rf"{name} ({number}) \+- {number}" for name in FOUND)
        found = re.search(f"found {each} \\(mean and standard deviation of the last 1 ", said)
        assert found, said
        about = read_made_by(folder / "samples/restored/old.png/mean.png")
        assert about
        assert [f"{about['blind'][name][0]:.3g}" for name in FOUND] == [*found.groups()]


@pytest.mark.slow
def test_a_network_is_given_the_picture_as_in_training(tmp_path: Path) -> None:
    """The same condition as from the whole picture, and the picture stays where it is known."""
    given = {"image_condition__name": "masked", "train__steps": 2, "train__checkpoint_every": 2}
    workdir, image = tmp_path / "run", picture(tmp_path / "old.png", 8, 8)
    assert run.run(tiny(**given), workdir, "train") == 0
    condition = Masked(1, 0.4, 0.4)(jnp.asarray(to_float(pixels(image)))[None, ..., None], KEYS)
    known = np.asarray(condition["image"][0, ..., 1]) > 0
    config = tiny(**given, restore__image=str(image), restore__method="as_trained")
    config.restore.mask.image = str(mask(tmp_path / "mask.png", ~known))
    seen = observe(config, Images((8, 8, 1)), image).observation
    found = observed_image(seen, (8, 8, 1), mask=True)
    np.testing.assert_array_equal(found, condition["image"])
    assert run.run(config, workdir, "restore") == 0
    restored = pixels(workdir / "samples" / "restored" / "old.png" / "mean.png")
    np.testing.assert_array_equal(restored[known], pixels(image)[known])


def test_a_folder_is_restored_and_what_cannot_be_read_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture(photos / "a.png", 4, 4)
    picture(photos / "b.jpg", 8, 8, 3)
    (photos / "c.png").write_text("no picture")
    assert restore(folder, photos, operator="downscale", method="pigdm", sigma=0.1) == 0
    said = capsys.readouterr()
    assert said.err.count("warning: skipped: ") == 1
    assert "c.png cannot be read: it is no picture" in said.err
    assert pixels(folder / "samples" / "restored" / "a.png" / "mean.png").shape == (8, 8)
    assert pixels(folder / "samples" / "restored" / "b.jpg" / "mean.png").shape == (16, 16)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image": ""}, r"--mode restore needs a picture: --restore FILE"),
        (
            {"image": "none.png", "operator": "blur"},
            r"restore\.image: none\.png cannot be read: No such file",
        ),
        ({"operator": "tear"}, r"restore\.operator='tear' is not known"),
        ({"method": "mpps"}, r"restore\.method='mpps' is not known: did you mean 'mmps'"),
        ({}, r"restore\.operator='mask' needs a picture that is white where"),
        ({"mask.image": "small.png"}, r"small\.png' is 4 x 3 pixels and the picture 8 x 8: they"),
        ({"mask.image": "none.png"}, r"restore\.mask\.image: none\.png cannot be read"),
        (
            {"operator": "jpeg", "method": "ddrm"},
            r"ddrm needs an operator with a spectrum, and JPEG",
        ),
        ({"operator": "blur", "method": "repaint"}, r"RePaint needs a mask, .* is GaussianBlur"),
        ({"operator": "fading", "fading.gain": (1.0, 2.0)}, r"fading\.gain=\(1\.0, 2\.0\) must"),
        (
            {"method": "as_trained"},
            r"needs a network of image_condition\.name='masked'",
        ),
        ({"operator": "blur+tear"}, r"restore\.operator='tear' is not known"),
        (
            {"operator": "downscale", "blind.rounds": 2},
            r"blind\.rounds=2 needs a restore\.operator with parameters .*'downscale' has none",
        ),
        ({"operator": "blur+jpeg", "blind.rounds": 2}, r"'jpeg' of .* depends on where they lie"),
        ({"operator": "mask+blur", "blind.rounds": 2}, r"needs 'mask' to be the last of"),
        ({"operator": "blur+blur", "blind.rounds": 2}, r"needs operators that differ"),
        (
            {"operator": "blur", "blind.rounds": 2, "method": "twisted"},
            r"needs samples, and restore\.method='twisted' has particles",
        ),
        (
            {"operator": "fading", "blind.rounds": 2, "fading.gain": (0.0,)},
            r"needs restore\.fading\.gain=\(0\.0,\) above 0",
        ),
        ({"mask.detector": "none"}, r"restore\.mask\.detector='none': there is no run in"),
        ({"mask.detector": "none@x"}, r"detector='none@x': 'x' is not the step"),
        ({"mask.detector": "run"}, r"detector='run' is a run of objective\.name='gaussian', not"),
        ({"mask.detector": "run", "mask.image": "old.png"}, r"mask\.detector, and not both"),
        ({"operator": "decay"}, r"operator='decay' needs restore\.simulate=True"),
        (
            {"operator": "decay", "simulate": True, "decay.kinds": ("rust",)},
            r"restore\.decay\.kinds='rust' is not known",
        ),
        ({"operator": "grey"}, r"restore\.operator='grey' needs a network of pictures in colour"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    settings: dict[str, Any],
    says: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(folder)
    picture(Path("small.png"), 3, 4)
    image = picture(Path("old.png"), 8, 8)
    assert restore(folder, image, **settings) == 2
    said = capsys.readouterr().err
    assert re.search(f"^error: .*{says}.*\n$", said, re.MULTILINE)
    assert said.count("error") == 1


def test_points_are_not_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(data__name="spiral", model__name="mlp", restore__image="old.png")
    config.evaluate.extractor = "entries"
    assert run.run(config, tmp_path / "run", "restore") == 2
    assert "restore.image='old.png' goes with images" in capsys.readouterr().err
