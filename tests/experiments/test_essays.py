"""The essays' claims are measured small."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from configs import digits
from diffusion_jax import run
from diffusion_jax.data import (
    ArraySource,
    Captions,
    Dataset,
    Images,
    Split,
)
from tests.experiments.common import experiment
from tests.runs import ROOT, colours


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_essays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every claim that is measured on a model, small; the figures are in the results."""
    measure, states = experiment("essays/measure"), experiment("essays/states")
    starts = experiment("essays/starts")
    monkeypatch.setattr(experiment("essays/bench"), "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(starts, "STEPS", 1)
    monkeypatch.setattr(starts, "WALK", (0, 100))
    monkeypatch.setattr(states, "LEVELS", states.SHOWN)
    monkeypatch.setattr(states, "INVERSION_STEPS", 2)
    monkeypatch.setattr(states, "STEPS", 1)
    monkeypatch.setattr(states, "HALVES", (0.5,))
    assert run.run(digits.get_config(), tmp_path / "run", "train") == 0
    asked = ["measure.py", *measure.CLAIMS, "--workdir", str(tmp_path / "run"), "--name", "tiny"]
    monkeypatch.setattr(sys, "argv", [*asked, "--num", "20", "--pictures", "--out", str(tmp_path)])
    measure.main()
    found = json.loads((tmp_path / measure.RESULTS).read_text())
    assert found.keys() == measure.CLAIMS.keys()
    estimates = [tree for tree in jax.tree.leaves(found, is_leaf=is_estimate) if is_estimate(tree)]
    assert len(estimates) > 50
    assert all(one["low"] <= one["value"] <= one["high"] for one in estimates)
    pictures = {path.name for path in tmp_path.glob("*_tiny.png")}
    assert pictures == {f"{claim}_tiny.png" for claim in measure.CLAIMS}


def is_estimate(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.keys() == {"value", "low", "high"}


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_essay_on_two_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    two = experiment("essays/two")
    source, _ = colours(6)
    noise = np.random.default_rng(0).integers(0, 256, source.items.shape, np.uint8)
    names = ["other", two.PAIR["cat"], "other", two.PAIR["dog"], "other", "other"]
    split = Split(ArraySource(noise, source.labels), Captions.of([[name] for name in names]))
    monkeypatch.setattr(
        two, "load_dataset", lambda _: Dataset("emoji", Images((8, 8, 1)), {"train": split})
    )
    asked = ["two.py", "--sizes", "2", "4", "--steps", "1", "--num", "4"]
    folders = ["--workdir", str(tmp_path / "runs"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*asked, *folders])
    two.main()
    assert [p.parent.name for p in sorted((tmp_path / "runs/pictures_2").rglob("*.png"))] == [
        "cat",
        "dog",
    ]
    found = json.loads((tmp_path / "results.json").read_text())["two"]
    assert {name: one["training pictures"] for name, one in found.items()} == {
        "2 pictures": 2,
        "4 pictures": 4,
    }
    assert (tmp_path / "two_4.png").stat().st_size


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_essay_on_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts, folder = experiment("essays/texts"), tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"number {i}")
    config = digits.get_config()
    config.data.name, config.data.dir, config.data.image_size = "folder", str(folder), 8
    config.text.name = "bytes"
    assert run.run(config, tmp_path / "run", "train") == 0
    asked = ["texts.py", "--workdir", str(tmp_path / "run"), "--num", "3", "--variants", "2"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", str(tmp_path)])
    texts.main()
    found = json.loads((tmp_path / "results.json").read_text())["destination"]["texts"]
    assert found["names"] == len(found["shown"]) == 3
    assert found["scale 1"]["spread"]["value"] > 0
    assert (tmp_path / "destination_texts.png").stat().st_size


def test_published_figures_of_essays() -> None:
    """A result for every claim, and a picture for those that the README shows."""
    measure = experiment("essays/measure")
    here = ROOT / "experiments/essays"
    found = json.loads((here / measure.RESULTS).read_text())
    assert found.keys() == {*measure.CLAIMS, "two"}
    shown = {part.split(")")[0] for part in (here / "README.md").read_text().split("](")[1:]}
    assert all((here / name).exists() for name in shown if name.endswith(".png"))
