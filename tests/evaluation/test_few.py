"""Small data sets: each figure is measured if it is defined, or the report says what is missing."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from diffusion_jax import report
from diffusion_jax.data import ArraySource, Split
from diffusion_jax.evaluation import distances
from diffusion_jax.evaluation.bits import Bits
from diffusion_jax.evaluation.denoising import TIMES, Denoising, ratio
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.evaluation.extractor import Extractor, unlearnable
from diffusion_jax.from_config import build
from diffusion_jax.metrics import retrieval
from diffusion_jax.metrics.estimates import least, moment_estimates
from diffusion_jax.metrics.frechet import Moments, frechet_distance, moments
from diffusion_jax.metrics.intervals import (
    bootstrap,
    mean,
    quantile,
    too_few,
    variance_of_mean,
)
from diffusion_jax.metrics.neighbours import two_nearest
from diffusion_jax.metrics.retrieval import text_estimates
from diffusion_jax.report.figures import measured
from tests.evaluation.models import model_of
from tests.runs import random_dataset, tiny

FEATURES = 20  # more than some sets have rows: covariances without full rank


def dataset_of(train: int, heldout: int, classes: int = 2, alike: bool = False):
    """Noise, or the same picture throughout, with classes in turn."""
    rng = np.random.default_rng(0)

    def split(num):
        images = rng.integers(0, 256, (num, 8, 8, 1), np.uint8)
        images = np.full_like(images, 90) if alike else images
        return Split(ArraySource(images, np.arange(num, dtype=np.int32) % max(classes, 1)))

    splits = {"train": split(train), "heldout": split(heldout)}
    names = tuple(map(str, range(classes)))
    return dataclasses.replace(random_dataset(), splits=splits, class_names=names)


def forward(images):
    flat = np.reshape(images, (len(images), -1)) / 255
    return flat[:, :2], flat[:, :FEATURES]


EXTRACTOR = Extractor("x", "0123", "as stored, float32", forward)


def whole(num, train, heldout, tmp_path, classes=2, alike=False):
    data = dataset_of(train, heldout, classes, alike)
    measure = Distances(data, EXTRACTOR, 20, tmp_path)
    images, labels = dataset_of(num, 0, classes, alike).arrays("train")
    chunks = [(images, labels if classes else None)]
    result = measure(model_of(data, chunks=chunks, folder=tmp_path))
    return {**result, **measure.of_data({})}


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize(
    ("num", "train", "heldout"),
    [(1, 1, 0), (1, 1, 1), (2, 2, 1), (3, 5, 2), (4, 6, 3), (5, 4, 5), (12, 18, 12), (80, 54, 6)],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_each_figure_is_measured_from_its_numbers_on(num, train, heldout, alike, tmp_path):
    for classes in (2, 0, 5):
        result = whole(num, train, heldout, tmp_path / str(classes), classes, alike)
        for end, there in (("", num), ("_heldout", heldout)):
            for name, numbers in distances.LEAST.items():
                key = f"{name}_x" * (name in distances.estimates.LEAST) or name
                if not there:
                    assert f"{key}{end}" not in result
                if not there or (not classes and name == "accuracy"):
                    continue
                entry, counts = result[f"{key}{end}"], (there, train, heldout)
                if name == "frechet_infinite":
                    numbers = (4 * FEATURES, 2, 0)
                enough = all(a >= b for a, b in zip(counts, numbers, strict=True))
                assert ("left_out" not in entry) == enough, key
                if enough:
                    assert entry["low"] <= entry["value"] <= entry["high"]
        report.write_result(tmp_path / "result.json", result)
        assert "NaN" not in (tmp_path / "result.json").read_text()
        report.write_report(tmp_path / "report.md", "few", result, {}, [], [])


def test_what_is_left_out_has_one_line_in_the_table_and_in_the_report(tmp_path):
    result = whole(5, 30, 3, tmp_path)
    table = report.result_tables(result)
    for line in (
        "- `recall_x`: 12 samples are needed, and there are 5.",
        "`memorised_share_heldout`: 20 held-out images are needed, and there are 3.",
        "- `frechet_x_heldout`: 4 held-out images are needed, and there are 3.",
        "- `frechet_infinite_x`: 80 samples are needed, and there are 5.",
    ):
        assert table.count(line) == 1
    assert "(`frechet_x`) | **" in table
    report.write_report(tmp_path / "report.md", "few", result, {}, [], [])
    assert table in (tmp_path / "report.md").read_text()
    assert json.loads(json.dumps(result))["recall_x"]["value"] is None
    assert too_few(*(("held-out images", 1, n) for n in (0, 2, 20))).startswith("20 held-out im")
    both = too_few(("samples", 5, 12), ("training images", 2, 3), ("held-out images", 9, 9))
    assert both == "12 samples and 3 training images are needed, and there are 5 and 2"


def test_the_extrapolated_distance_covers_the_limit_from_its_numbers_on():
    """Of a law that is known; below `least` 8 of 10 intervals did not reach it."""
    rng, dims = np.random.default_rng(0), 16
    reference = moments(rng.normal(size=(2000, dims)))
    limit = frechet_distance(Moments(np.full(dims, 0.5), np.eye(dims)), reference)
    num = least("frechet_infinite", dims)[0]
    found = [
        moment_estimates(rng.normal(0.5, 1, (num, dims)), None, reference)["frechet_infinite"]
        for _ in range(100)
    ]
    assert np.mean([one.low <= limit <= one.high for one in found]) > 0.85
    few = moment_estimates(rng.normal(0.5, 1, (num - 1, dims)), None, reference)
    assert few["frechet_infinite"] is None
    assert few["frechet"] is not None


@pytest.mark.parametrize("num", [2, 3, 6])
def test_intervals_of_few_cover_the_mean(num):
    """By Student's law; by the normal one 70% would of two values, and 81% of three."""
    found = [mean(x) for x in np.random.default_rng(0).normal(1, 2, (4000, num))]
    assert np.mean([one.low <= 1 <= one.high for one in found]) == pytest.approx(0.95, abs=0.012)


def test_a_single_row_of_a_kind_has_its_part_in_the_variance():
    values = np.array([1.0, 1.0, 4.0])
    assert variance_of_mean(values, np.array([0, 0, 1])) == pytest.approx(values.var(ddof=1) / 3)
    assert variance_of_mean(values, np.arange(3)) == pytest.approx(values.var(ddof=1) / 3)
    many = np.array([1.0, 2.0, 5.0, 6.0, 7.0, 4.0])  # the single one joins the smaller kind
    joined = variance_of_mean(many, np.array([0, 0, 1, 1, 1, 0]))
    assert variance_of_mean(many, np.array([0, 0, 1, 1, 1, 2])) == pytest.approx(joined)
    assert variance_of_mean(np.ones(1)) == 0
    for kinds in (np.array([0, 0, 0, 1, 1, 2]), np.arange(6), None):
        found = bootstrap(lambda x: float(x.mean()), many, 400, kinds)
        half = quantile(6) * variance_of_mean(many, kinds) ** 0.5
        assert found.high - found.value == pytest.approx(half, rel=0.25)


def test_the_second_nearest_of_a_single_one_is_at_infinity():
    near, numbers = two_nearest(np.ones((2, 3)), np.zeros((1, 3)))
    np.testing.assert_allclose(near, [[3**0.5, np.inf]] * 2)
    assert numbers[:, 0].tolist() == [0, 0]


def test_errors_of_zero_have_no_ratio():
    assert ratio(np.ones(3), np.ones(3))[0] == 1
    assert "all 0" in ratio(np.ones(3), np.zeros(3))
    assert "all 0" in ratio(np.zeros(3), np.ones(3))


@pytest.mark.parametrize("num", [1, 2, 5, 6])
def test_few_names(num):
    vectors = np.eye(6)[:num]
    found = text_estimates(vectors, vectors)
    assert {n for n, value in found.items() if value} == {
        name for name, least in retrieval.LEAST.items() if num >= least
    }


@pytest.mark.parametrize(
    ("classes", "train", "why"),
    [
        (2, 12, ""),
        (0, 60, "has no classes"),
        (1, 60, "has 1 of that size"),
        (60, 60, "has none of that size"),
        (2, 5, "has none of that size"),
        (2, 0, ""),  # only described
    ],
)
def test_a_classifier_is_trained_where_it_can_learn(classes, train, why):
    found = unlearnable(dataset_of(train, 2, classes))
    assert why in found
    assert bool(why) == bool(found)


@pytest.mark.slow
@pytest.mark.parametrize(("train", "heldout"), [(6, 0), (1, 6)])
def test_errors_and_likelihoods_of_few_items(train, heldout, tmp_path):
    data = dataset_of(train, heldout)
    config = tiny(sample__steps=3)
    parts = build(config, data)
    params = parts.task.init(jax.random.key(0))
    model = model_of(data, parts.generator, params, folder=tmp_path)
    result = {**Denoising(8)(model), **Bits(8, 1, 2, "large")(model)}
    splits = {"train": train, "heldout": heldout}
    for split, num in splits.items():
        names = [f"denoising_error_{split}_t{t:.2f}" for t in TIMES]
        for name in (*names, *(f"bits_{n}_{split}" for n in ("ode", "bound", "ancestral"))):
            assert (name in measured(result)) == (num >= 2)
    gap = "denoising_gap_t0.10"
    assert (gap in measured(result)) == (min(train, heldout) >= 2)
    table = report.result_tables(result)
    if min(train, heldout) < 2:
        few, num = min(("held-out", heldout), ("training", train), key=lambda one: one[1])
        assert re.search(
            rf"^- .*`denoising_gap`.*: 2 {few} images are needed, and there are {num}.$",
            table,
            re.MULTILINE,
        )
        assert table.count("| t = 0.1 |") == 1
