"""The whole command on folders of few images: it ends well, and reports what is left out."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import run
from tests.runs import tiny

pytestmark = pytest.mark.slow


def folder_of(root: Path, num: int, classes: int, alike: bool) -> Path:
    """Pictures of 8 x 8 pixels, in class folders if there are classes."""
    rng = np.random.default_rng(0)
    for number in range(num):
        folder = root / f"class{number % classes}" if classes else root
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), 90) if alike else rng.integers(0, 256, (8, 8, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03}.png")
    return root


@pytest.mark.parametrize(
    ("num", "classes", "alike", "left_out"),
    [
        (60, 2, False, ["`memorised_share`", "`recall_folder_cnn_heldout`: 12 held-out images"]),
        (60, 2, True, ["`memorised_share`"]),
        (60, 60, False, ["`recall`, `coverage`: a classifier learns from 2 classes of 5"]),
        (5, 2, False, ["has none of that size", "`denoising_gap`"]),
        (2, 0, False, ["`recall`, `coverage`: folder has no classes", "`bits_ode_train`"]),
        (1, 0, False, ["`copied_share`", "`bits_ode_heldout`"]),
    ],
)
def test_small_folders(
    num: int, classes: int, alike: bool, left_out: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("diffusion_jax.evaluation.extractor.STEPS", 3)
    monkeypatch.setattr(run.evaluation, "cache_dir", lambda: tmp_path / "cache")
    config = tiny(
        data__name="folder",
        data__dir=str(folder_of(tmp_path / "data", num, classes, alike)),
        data__heldout_fraction=0.1 if num > 1 else 0.0,
        train__heldout_every=3,
        evaluate__metrics="distances,denoising,likelihood",
        evaluate__num_samples=20,
        evaluate__likelihood__noise_levels=2,
    )
    assert run.run(config, tmp_path / "run", "all") == 0
    page = (tmp_path / "run" / "report.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("- `")]
    for words in left_out:
        assert any(words in line for line in lines), words
    text = (tmp_path / "run" / "result.json").read_text()
    assert not re.search("NaN|Infinity", text)
    for name, entry in json.loads(text).items():
        assert (entry["value"] is None) == ("left_out" in entry), name
    # It is not measured again.
    before = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    assert run.run(config, tmp_path / "run", "all") == 0
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == before
