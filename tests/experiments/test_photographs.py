"""Experiments on photographs and prints run small."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from configs import digits
from diffusion_jax import run
from diffusion_jax.data.sets.photographs import Patches
from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.restoration.decay import Decay, RandomDecay
from diffusion_jax.system.pictures import WORDS
from tests.experiments.common import experiment, finite
from tests.runs import ROOT, assert_same


def normal_prior(std: float, side: int) -> Any:
    """Pictures whose pixels are independent, of `N(0, std^2)`, with their exact denoiser."""
    calibration, schedule = experiment("restoration/calibration"), Cosine()

    def denoise(x_t: Any, t: Any, cond: Any) -> Any:
        alpha, sigma = (a[:, None, None, None] for a in schedule.scales(t))
        return calibration.Denoised(alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x_t)

    return calibration.Model(lambda params: denoise, (), schedule, (side, side, 3), 0.0, None)


def test_restored_photographs() -> None:
    """Of a known prior: the mean is the posterior's, and the spread is the true error."""
    photographs = experiment("restoration/photographs")
    x = 0.25 * np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    given = photographs.observed(photographs.Identity(), x, 0.25, seed=1)
    case = photographs.Case(photographs.DENOISING, x, given, np.arange(2))
    methods = photographs.Ours(normal_prior(0.25, 16), 4, 40).methods(few=1)
    found = photographs.measure(
        case, "PiGDM", methods["PiGDM"], {"data_std": 0.25}, distance=None, few=1
    )
    ratio, low, high = found["reliability"]["ratio"]
    assert low < ratio < high
    assert ratio == pytest.approx(1, abs=0.08)
    samples = methods["PiGDM"].run(case, data_std=0.25)
    # Half of the picture and half of the data's mean; 4 samples are 0.09 off it.
    assert np.std(samples.mean(1) - given.y / 2) == pytest.approx(0.25 / 8**0.5, rel=0.1)
    hidden = np.stack([photographs.boxes(np.random.default_rng(i), 16) for i in range(2)])
    given = photographs.observed(photographs.Mask(hidden), x, 0.0, seed=1)
    case = photographs.Case(photographs.BOXES, x, given, np.arange(2))
    samples = methods["PiGDM"].run(case, data_std=0.25)
    known = np.broadcast_to(hidden[:, None] == 1, samples.shape)
    np.testing.assert_array_equal(samples[known], np.broadcast_to(x[:, None], samples.shape)[known])
    assert samples[~known].std() == pytest.approx(0.25, rel=0.1)


def test_photographs_whose_damage_is_not_told() -> None:
    """Where a detector finds all of it, and nothing else, masks and results are those told."""
    photographs = experiment("restoration/photographs")
    unseen = experiment("restoration/photographs_unseen")
    x = np.zeros((2, 16, 16, 3), np.float32)
    known = np.ones((2, 16, 16, 1), np.float32)
    known[:, 4:7, 4:7] = 0
    image = np.where(known == 1, x, 1)
    told = photographs.masked(photographs.DECAYED, x, image, known, 0.0, np.arange(2))
    found = unseen.with_found_mask(lambda x: x.max(-1) * (np.indices((16, 16)) == 5).all(0), told)
    assert_same(*(jax.tree.leaves(case.given) for case in (found, told)))
    whole = unseen.given_whole(told).part([1])
    np.testing.assert_array_equal(whole.given.y, image[1:])
    assert whole.task == told.task


@pytest.mark.slow
def test_restored_photographs_by_others() -> None:
    """Operators and denoiser are ours, and every method fits its tasks."""
    photographs = experiment("restoration/photographs")
    theirs = experiment("restoration/photographs_theirs")
    rng, model = np.random.default_rng(0), normal_prior(0.25, 24)
    pixels = rng.integers(60, 200, (2, 24, 24, 3), np.uint8)
    cases = photographs.cases(pixels, np.arange(2), seed=0)
    image = pixels.copy()
    image[:, 5:8] = 0
    cases[photographs.OTHERS] = photographs.decayed_by(
        photographs.OTHERS, pixels, image, np.arange(2)
    )
    z = rng.normal(size=(2, 24, 24, 3)).astype(np.float32)
    for case in cases.values():
        right = case.given.operator(z) - case.given.operator(0 * z)
        found = theirs.forward(case)(theirs.torch.from_numpy(z).flatten(1))
        np.testing.assert_allclose(found, right.reshape(2, -1), atol=1e-5)
    flat, numbers = theirs.torch.from_numpy(z).flatten(1), map(theirs.torch.tensor, (0.8, 0.6))
    found = theirs.denoiser(model)(flat, *numbers)
    np.testing.assert_allclose(found, 0.8 / 16 / (0.64 / 16 + 0.36) * flat, atol=1e-5)
    for name, method in theirs.methods(model, 2, 6, few=1).items():
        for task in method.tasks:
            made = method.run(cases[task], **method.settings[0])
            assert made.shape[2:] == (24, 24, 3), name
            assert np.isfinite(made).all()
    part = rng.integers(60, 200, (192, 192, 3), np.uint8)
    assert theirs.worn(part, 0).shape == part.shape
    np.testing.assert_array_equal(theirs.worn(part, 0), theirs.worn(part, 0))


def test_published_figures_of_photographs() -> None:
    """The page has the tables of the results."""
    report, folder = experiment("restoration/photographs_report"), ROOT / "experiments/restoration"
    lines = report.tables(json.loads((folder / "photographs.json").read_text()))
    assert set(lines) <= set((folder / "photographs.md").read_text().splitlines())


@pytest.mark.slow
def test_damage_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows the colour of the damage finds it all; filters do not."""
    damage, only = experiment("restoration/damage"), ("mould",)
    monkeypatch.setattr(damage, "DESTROY", only)
    monkeypatch.setattr(damage, "TONE", ("fading",))
    monkeypatch.setattr(damage, "RandomDecay", lambda s, z, k=only: RandomDecay(s, z, k))
    monkeypatch.setattr(damage, "Decay", lambda s: Decay(s, only))
    monkeypatch.setattr(damage, "foreign", lambda: {"black": lambda: blackened})
    pixels = np.random.default_rng(0).integers(100, 256, (2, 60, 60, 3), np.uint8)
    patches = Patches("ab", list(pixels), np.zeros((0, 3), int), 16)
    found, sheet = damage.measure(patches, lambda x: x.max(-1) < -0.9, 16, 4, large=24)
    assert list(found["cases"]) == [
        *("mould", "all kinds", "tone only", "whole pictures", "augraphy: black")
    ]
    row = found["cases"]["augraphy: black"]
    assert row["pictures"] == 2
    assert row["destroyed"] == pytest.approx(1 / 9)
    assert row["network"]["iou"][0] == row["network"]["average_precision"][0] == 1
    assert max(row[name]["iou"][0] for name in ("median", "top_hat")) < 1
    assert found["cases"]["tone only"]["wrong"][0] == 0
    assert len(sheet) == 5 * (damage.CELL + 1) + 1
    lines = damage.tables(found).splitlines()
    assert sum(line.startswith("| augraphy: black | 11.1% | 1.00 (1.00 to 1.00)") for line in lines)
    masks = found["masks, all kinds"]
    assert len(masks) == len(damage.THRESHOLDS) * len(damage.DILATE)
    recall = [row["recall"][0] for row in masks[: len(damage.DILATE)]]
    assert recall == sorted(recall)


def blackened(picture: np.ndarray) -> np.ndarray:
    """A picture with a black square of a third of its side."""
    made = picture.copy()
    made[8:16, 8:16] = 0
    return made


def test_published_damage() -> None:
    """The page has the tables of the results."""
    damage, folder = experiment("restoration/damage"), ROOT / "experiments/restoration"
    lines = damage.tables(json.loads((folder / "damage.json").read_text())).splitlines()
    assert set(lines) <= set((folder / "damage.md").read_text().splitlines())


@pytest.mark.slow
def test_a_sheet_of_decay() -> None:
    sheets = experiment("restoration/decay_sheet")
    picture = sheets.photograph(side=24)
    made = sheets.sheet(picture)
    assert made.shape == (12 * 49 + 1, WORDS + 3 * 49 + 1, 3)  # enlarged to 48 pixels
    assert len({made[49 * row + 1 : 49 * row + 49].tobytes() for row in range(12)}) == 12


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_prints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A print and a photograph of the network's channels, and their tables."""
    prints = experiment("restoration/prints")
    for name, value in {"STEPS": 2, "SIDE": 12, "RESTORED": 8}.items():
        monkeypatch.setattr(prints, name, value)
    assert run.run(digits.get_config(), tmp_path / "run", "train") == 0
    model = prints.opened(tmp_path / "run", rounds=2, windows=2, samples=2)
    rng = np.random.default_rng(0)
    path = tmp_path / "img-sheep" / "data" / "image.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (24, 18), np.uint8)).save(path)
    photograph = rng.uniform(-1, 1, (21, 32, 1)).astype(np.float32)
    result = {
        "prints": [prints.of_print(model, path, tmp_path)],
        "photographs": [prints.of_photograph(model, photograph, number) for number in range(2)],
    }
    assert finite([[row["psnr"], row["found"]] for row in result["photographs"]])
    assert Image.open(tmp_path / "prints_sheep.png").size[0] > 4 * 9
    lines = prints.tables(json.loads(json.dumps(result)))
    assert lines[0].startswith("| of 2 photographs ")
    assert lines[-1].startswith("| sheep | ")


def test_published_figures_of_prints() -> None:
    """The page has the tables of the results."""
    prints, folder = experiment("restoration/prints"), ROOT / "experiments/restoration"
    lines = prints.tables(json.loads((folder / "prints.json").read_text()))
    assert set(lines) <= set((folder / "prints.md").read_text().splitlines())
