"""A network that finds destroyed pixels: trained, measured, and asked for a mask."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import run
from diffusion_jax.from_config import ConfigError, build, damage
from diffusion_jax.restoration.decay import RandomDecay
from diffusion_jax.restoration.detector import Detector
from tests.runs import random_dataset, tiny

FEW = {"train__steps": 2, "train__checkpoint_every": 2, "model__dit__depth": 1}
FINDS = {
    **FEW,
    **{"objective__name": "damage", "model__name": "unet", "model__unet__channels": 8},
    **{"model__unet__channel_mults": (1,), "model__unet__attention_levels": ()},
    **{"model__unet__num_blocks": 1, "train__heldout_every": 2, "evaluate__metrics": "damage"},
    **{"evaluate__damage__num_images": 12, "sample__batch_size": 8},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that draws digits, and one that finds mould on them and was evaluated."""
    draws, finds = (tmp_path_factory.mktemp("runs") / name for name in ("draws", "finds"))
    assert run.run(tiny(**FEW), draws, "train") == 0
    with pytest.MonkeyPatch.context() as patch:  # as all kinds take long to compile
        only = functools.partial(RandomDecay, kinds=("mould",))
        patch.setattr(damage, "RandomDecay", only)
        assert run.run(tiny(**FINDS), finds, "train") == 0
        assert run.run(tiny(**FINDS), finds, "evaluate") == 0
    return draws, finds


def restore(folder: Path, image: Path, **settings: Any) -> int:
    config = tiny(**FEW, sample__steps=3)
    config.restore.update(image=str(image), num_samples=2, method="ddnm")
    config.update_from_flattened_dict(
        {f"restore.{key.replace('__', '.')}": value for key, value in settings.items()}
    )
    return run.run(config, folder, "restore")


def picture(path: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.slow
def test_it_is_measured(folders: tuple[Path, Path]) -> None:
    result = json.loads((folders[1] / "result.json").read_text())
    assert set(result) == {"average_precision", "iou"}
    for entry in result.values():
        assert 0 <= entry["value"] <= 1
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert entry["n"] == 12
    assert 0 < result["iou"]["passport"]["destroyed"] < 1
    assert (folders[1] / "samples" / "damage.png").exists()
    assert "samples/damage.png" in (folders[1] / "report.md").read_text()
    metrics = [json.loads(line) for line in (folders[1] / "metrics.jsonl").read_text().splitlines()]
    assert any("heldout/wrong" in line for line in metrics)


@pytest.mark.slow
def test_the_mask_that_it_finds_is_restored(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws, finds = folders
    old = picture(tmp_path / "old.png")
    monkeypatch.setattr(Detector, "__call__", lambda self, x: (x[..., 0] + 1) / 2)
    settings = {"mask__detector": f"{finds}@2", "mask__threshold": 0.7, "mask__dilate": 0}
    assert restore(draws, tmp_path / "old.png", **settings) == 0
    out = draws / "samples" / "restored" / "old.png"
    lost = old / 255 >= 0.7
    np.testing.assert_array_equal(pixels(out / "mask.png"), np.where(lost, 255, 0))
    mean = pixels(out / "mean.png")
    np.testing.assert_array_equal(mean[~lost], old[~lost])
    assert np.mean(mean[lost] != old[lost]) > 0.5


@pytest.mark.slow
def test_a_picture_decays(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mask is told, or found: by a network of two steps, at the probability 0 everywhere."""
    draws, finds = folders
    whole = picture(tmp_path / "whole.png")
    asked = {"operator": "decay", "simulate": True, "decay__kinds": ("mould",)}
    asked["decay__severity"] = 1.0
    out, decayed = draws / "samples" / "restored" / "whole.png", []
    for more in ({"decay__seed": 0}, {"mask__detector": str(finds), "mask__threshold": 0.0}):
        assert restore(draws, tmp_path / "whole.png", **asked, **more) == 0
        assert "against the truth: mean" in capsys.readouterr().out
        decayed.append(pixels(out / "mask.png") == 255)
        if not decayed[1:]:
            np.testing.assert_array_equal(pixels(out / "mean.png")[~decayed[0]], whole[~decayed[0]])
    assert 0 < decayed[0].mean() < 0.5
    assert decayed[1].all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"text__name": "bytes"}, "objective.name='damage' needs text.name='none', not 'bytes'"),
        ({"image_condition__name": "masked"}, "needs image_condition.name='none'"),
        ({"model__name": "dit"}, "objective.name='damage' does not support model.name='dit'"),
        ({"evaluate__metrics": "denoising"}, "finds destroyed pixels and draws none"),
        ({"objective__damage__zoom": 0.5}, "objective.damage.zoom=0.5 must lie in [1, inf)"),
        ({"objective__name": "gaussian"}, "'damage' needs objective.name='damage'"),
    ],
)
def test_what_cannot_be_trained(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        build(tiny(**{**FINDS, **settings}), random_dataset())
