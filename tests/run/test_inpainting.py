"""Inpainting from the command line, by the networks of 4 and of 9 channels."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import run
from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.models.published.files import write_part
from diffusion_jax.system.pictures import read_made_by
from tests.runs import random_dataset, tiny
from tests.stable_diffusion import settings, write_small

MASK = np.zeros((16, 24), bool)
MASK[4:11, 5:20] = True
OWN = {"image_condition__name": "inpainting"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("published") / "small")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, another that differs where it is hidden, and masks."""
    where = tmp_path_factory.mktemp("pictures")
    x = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(x).save(where / "a.png")
    Image.fromarray(np.where(MASK[..., None], 255 - x, x)).save(where / "b.png")
    Image.fromarray(np.uint8(255 * MASK)).save(where / "mask.png")
    Image.fromarray(np.uint8(255 * MASK[:8])).save(where / "half.png")
    Image.fromarray(np.uint8(0 * MASK)).save(where / "black.png")
    return where


def inpaint(
    source: Path, pictures: Path, workdir: Path, picture: str = "a.png", **changes: Any
) -> int:
    given = {"image": str(pictures / picture), "mask": str(pictures / "mask.png")}
    given = {f"sample__inpaint__{key}": value for key, value in given.items()}
    config = settings(source, **{**given, "sample__num_images": 1, **changes})
    return run.run(config, workdir, "sample")


def result(workdir: Path) -> np.ndarray:
    return np.asarray(Image.open(workdir / "samples/inpainted/000000.png"))


@pytest.fixture(scope="module")
def own_network(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of 9 channels."""
    source = tmp_path_factory.mktemp("published") / "inpainting"
    source.mkdir()
    for part in folder.iterdir():
        (source / part.name).symlink_to(part)
    (source / "unet").unlink()
    task = build(settings(folder, **OWN)).task
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.1 * rng.standard_normal(a.shape, np.float32), shapes)
    assert params["conv_in"]["kernel"].shape == (3, 3, 9, 32)
    write_part(source, "unet", {"params": params})
    return source


@pytest.mark.slow
def test_what_is_not_masked_is_kept_to_the_bit(
    folder: Path, pictures: Path, tmp_path: Path
) -> None:
    picture = np.asarray(Image.open(pictures / "a.png"))
    assert inpaint(folder, pictures, tmp_path / "kept", sample__inpaint__strength=0.7) == 0
    found = result(tmp_path / "kept")
    np.testing.assert_array_equal(found[~MASK], picture[~MASK])
    assert np.mean(found[MASK] != picture[MASK]) > 0.9
    about = read_made_by(tmp_path / "kept/samples/inpainted/000000.png")
    assert about is not None
    assert about["inpaint"]["strength"] == 0.7
    assert inpaint(folder, pictures, tmp_path / "as_drawn", sample__inpaint__keep=False) == 0
    assert np.mean(result(tmp_path / "as_drawn")[~MASK] != picture[~MASK]) > 0.5


@pytest.mark.slow
def test_where_all_is_known_nothing_is_drawn(folder: Path, pictures: Path, tmp_path: Path) -> None:
    """Also without the image's own pixels: what is decoded are its latents."""
    asked = {"mask": str(pictures / "black.png"), "keep": False}
    changes = {f"sample__inpaint__{key}": value for key, value in asked.items()}
    assert inpaint(folder, pictures, tmp_path, **changes, sample__num_images=2) == 0
    second = np.asarray(Image.open(tmp_path / "samples/inpainted/000001.png"))
    np.testing.assert_array_equal(result(tmp_path), second)


@pytest.mark.slow
def test_at_full_strength_its_own_network_does_not_see_what_is_hidden(
    own_network: Path, pictures: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        assert inpaint(own_network, pictures, tmp_path / name, name, **OWN) == 0
    first, second = (result(tmp_path / name) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(first, second)
    part = {**OWN, "sample__inpaint__strength": 0.7}
    for name in ("a.png", "b.png"):
        assert inpaint(own_network, pictures, tmp_path / name, name, **part) == 0
    assert np.any(result(tmp_path / "a.png") != result(tmp_path / "b.png"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"sample__inpaint__mask": "half.png"},
            "is 24 x 8 pixels and sample.inpaint.image 24 x 16",
        ),
        ({"sample__inpaint__mask": ""}, "needs sample.inpaint.mask, a picture that is white where"),
        ({"sample__inpaint__mask": "none.png"}, "sample.inpaint.mask: "),
        ({"data__shape": (16, 16, 3)}, "samples are 16 x 16: resize it"),
        ({"sample__inpaint__strength": 0.3}, "of sample.steps=3 is less than one step"),
        ({"sample__inpaint__image": "", **OWN}, "draws only into a picture: --inpaint"),
        (OWN, "conv_in.weight [32, 9, 3, 3], which in the file is [32, 4, 3, 3]"),
    ],
)
def test_what_cannot_be_painted_is_one_line(
    folder: Path, pictures: Path, tmp_path: Path, capsys: Any, changes: dict[str, Any], says: str
) -> None:
    changes = {
        key: str(pictures / value) if str(value).endswith("png") else value
        for key, value in changes.items()
    }
    assert inpaint(folder, pictures, tmp_path / "run", **changes) == 2
    error = capsys.readouterr().err
    assert says in error, error
    assert error.count("\n") == 1


def test_its_own_network_is_not_trained() -> None:
    with pytest.raises(ConfigError, match=r"is not trained: data\.name='.*' must be 'none'"):
        build(tiny(**OWN), random_dataset())


def test_a_network_starts_from_one_place() -> None:
    config = tiny(train__init_from="runs/other", weights__source="sd15")
    with pytest.raises(
        ConfigError, match=r"train\.init_from='runs/other' and weights\.source='sd1"
    ):
        build(config, random_dataset())
