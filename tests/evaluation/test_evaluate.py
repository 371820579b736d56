"""Evaluation: the same in chunks, against the moments of a file, and without held-out images."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.data import ArraySource, DataError, Split
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.evaluation.references import Statistics
from diffusion_jax.metrics.frechet import Moments, frechet_distance, moments
from diffusion_jax.report import result_tables
from diffusion_jax.report.figures import measured
from tests.evaluation.models import model_of, pictures_of
from tests.runs import random_dataset

DATASET = random_dataset()


def forward(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some pixels as logits and as features."""
    flat = images.reshape(len(images), -1)
    return flat[:, :10], flat[:, :3]


EXTRACTOR = Extractor("x", "0123", "as stored, float32", forward)


def chunks(size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (50, 8, 8, 1), np.uint8), np.arange(50) % 10
    images[[7, 31]] = DATASET.splits["train"].gather(np.array([3, 20]))[0]
    for start in range(0, 50, size):
        yield images[start : start + size], labels[start : start + size]


def in_order(pictures: np.ndarray) -> np.ndarray:
    """The columns of `closest.png`, of the first two of which rounding alone chooses the order."""
    first = sorted(range(2), key=lambda i: pictures[i].tobytes())
    columns = np.array([*first, *range(2, 10)])
    return pictures[np.concatenate([columns, 10 + columns])]


def test_chunks_make_no_difference_and_passports_say_what_was_measured_with(
    tmp_path: Path,
) -> None:
    measure, found = Distances(DATASET, EXTRACTOR, 20, tmp_path), []
    for size in (50, 20):
        folder = tmp_path / f"in_{size}"
        model = model_of(DATASET, chunks=chunks(size), passport={"steps": 7}, folder=folder)
        found.append((measure(model), pictures_of(folder / "closest.png", 8)))
    (whole, closest), (parts, same) = found
    assert whole.keys() == parts.keys()
    for name, entry in whole.items():
        found = [parts[name][key] for key in ("value", "low", "high")]
        expected = [entry[key] for key in ("value", "low", "high")]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
        assert entry["n"] == 50
        assert entry["passport"]["steps"] == 7
        assert entry["passport"]["reference"] == "noise train noise" or "accuracy" in name
        if name.endswith("_x"):
            assert entry["passport"]["extractor"] == "x 0123"
            assert entry["passport"]["preprocessing"] == "as stored, float32"
    np.testing.assert_array_equal(in_order(closest), in_order(same))
    # The two copies come first, over the images that they are copies of.
    np.testing.assert_array_equal(closest[:2], closest[10:12])
    assert whole["copied_share"]["value"] == 2 / 50
    features = np.concatenate([EXTRACTOR(images)[1] for images, _ in chunks(20)])
    train = EXTRACTOR(DATASET.splits["train"].gather(np.arange(40))[0])[1]
    expected = frechet_distance(moments(features), moments(train))
    assert whole["frechet_x"]["value"] == pytest.approx(expected, rel=1e-5)
    table = result_tables({**whole, **measure.of_data({"steps": 7})})
    assert "differs" not in table
    assert all(f"(`{name}`) | **" in table for name in whole)
    # Such a table says if its figures are of different things.
    whole["recall_x"]["passport"]["steps"] = 8
    assert "- steps differs: 7 in frechet_x" in result_tables(whole)


def test_moments_of_a_file_give_the_frechet_distance_only(tmp_path: Path) -> None:
    other = Statistics(Moments(np.ones(3), np.eye(3)), "stats.npz abc")
    measure = Distances(DATASET, EXTRACTOR, 20, tmp_path, other)
    result = measure(model_of(DATASET, chunks=chunks(20), folder=tmp_path))
    names = {name.removesuffix("_x") for name in result if name.endswith("_x")}
    classes = {"accuracy", "inception_score", "inception_score_infinite"}
    assert names == {"frechet", "frechet_infinite", *classes}
    assert result["frechet_x"]["passport"]["reference"] == "stats.npz abc"
    table = result_tables({**result, **measure.of_data({})})
    assert "- reference differs: stats.npz abc in frechet_x" in table
    wrong = Statistics(Moments(np.ones(2), np.eye(2)), "stats.npz abc")
    with pytest.raises(DataError, match="is of 2 features, while x has 3"):
        Distances(DATASET, EXTRACTOR, 20, tmp_path, wrong)
    with pytest.raises(DataError, match="no classes"):
        Distances(DATASET, "no classes", 20, tmp_path, other)


def test_without_held_out_images_and_without_an_extractor(tmp_path: Path) -> None:
    nothing = ArraySource(np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int32))
    splits = {"train": DATASET.splits["train"], "heldout": Split(nothing)}
    data = dataclasses.replace(DATASET, splits=splits)
    measure = Distances(data, "no classes", 20, tmp_path)
    assert measure.of_data({}) == {}
    unlabelled = ((images, None) for images, _ in chunks(20))
    result = measure(model_of(data, chunks=unlabelled, folder=tmp_path))
    assert set(measured(result)) == {"nearest_training_distance", "copied_share"}
    table = result_tables(result)
    assert table.count("`) | **") == 2
    assert re.search("^- `frechet`, .*`coverage`: no classes.$", table, re.MULTILINE)
    assert "- `memorised_share`: 20 held-out images are needed, and there are 0." in table
