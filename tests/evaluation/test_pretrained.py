"""Published networks compared with their published code, from images to features.

The results of that code are in `reference/extractors.npz`, made by `reference/make_extractors.py`.
"""

import json
import math
import pathlib
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.evaluation.pretrained import (
    EFFLITE0,
    INCEPTION,
    PRETRAINED,
    dinov2,
    load_pretrained,
    packaged,
    resize_bicubic,
    resize_like_tensorflow1,
)
from diffusion_jax.models import weights
from diffusion_jax.models.efficientnet import depthwise_conv_by_shifts
from diffusion_jax.models.vision_transformer import VisionTransformer

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "reference" / "extractors.npz")
SHAPES = json.loads(str(REFERENCE["shapes"]))
SMALL = {registers: VisionTransformer(32, 2, 2, registers) for registers in (0, 4)}


def drawn(name, shape):
    """The same in `reference/make_extractors.py`."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("running_var"):
        return np.exp(0.2 * x)
    if name.endswith("weight"):
        return x * np.float32(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else 1 + 0.1 * x
    return (0.1 if name.endswith(("bias", "running_mean")) else 0.5) * x


@pytest.fixture
def _drawn(monkeypatch):
    """A file is the name of a network in `SHAPES`: it has the published names and shapes."""
    monkeypatch.setattr(
        weights, "read_tensors", lambda name: {n: drawn(n, s) for n, s in SHAPES[name].items()}
    )
    monkeypatch.setattr("diffusion_jax.evaluation.pretrained.file_digest", lambda name: "")


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def nhwc(name):
    return jnp.asarray(REFERENCE[name].transpose(0, 2, 3, 1))


@pytest.mark.usefixtures("_drawn")
@pytest.mark.parametrize("name", ["inception", "efflite0"])
@pytest.mark.slow
def test_logits_and_features_are_those_of_the_published_code(name):
    logits, features = load_pretrained(name, name)(REFERENCE["images"])
    expected = REFERENCE[{"inception": "inception_unbiased", "efflite0": "efflite0_logits"}[name]]
    assert relative_error(logits, expected) < 2e-5
    assert relative_error(features, REFERENCE[f"{name}_features"]) < 2e-5
    assert np.ptp(REFERENCE[f"{name}_features"], axis=0).max() > 0.5  # images differ in them


@pytest.mark.usefixtures("_drawn")
@pytest.mark.parametrize("registers", SMALL)
def test_features_of_dinov2_are_those_of_the_published_code(monkeypatch, registers):
    name = f"dinov2_{registers}"
    monkeypatch.setitem(PRETRAINED, name, dinov2(SMALL[registers], ""))
    logits, features = load_pretrained(name, name)(REFERENCE["images"])
    assert logits is None
    assert relative_error(features, REFERENCE[name]) < 2e-5


def test_resizing_is_that_of_the_published_code():
    tall = nhwc("tall")
    for size in (7, 31):
        found = resize_like_tensorflow1(tall, size)
        np.testing.assert_allclose(found, nhwc(f"tall_{size}"), atol=1e-4)
    np.testing.assert_allclose(resize_bicubic(tall, 7), nhwc("tall_cubic_7"), atol=1e-3)
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    small = Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC)
    found = resize_bicubic(jnp.asarray(picture[None], jnp.float32), 16)[0]
    np.testing.assert_allclose(found, np.asarray(small), atol=1.01)  # Pillow rounds each axis


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [
        ("inception", 23_850_960, 2048),
        ("efflite0", 4_652_008, 1280),
        ("dinov2_vits14", 22_056_192, 384),
        ("dinov2_vitb14", 86_579_712, 768),
        ("dinov2_vitl14", 304_367_616, 1024),
        ("dinov2_vits14_reg", 22_057_728, 384),
    ],
)
@pytest.mark.slow
def test_sizes_are_the_published_ones(name, parameters, features):
    pretrained = PRETRAINED[name]
    shapes = pretrained.shapes()
    count = sum(math.prod(a.shape) for a in jax.tree.leaves(shapes["params"]))
    assert count == parameters
    for channels in (1, 3):
        images = jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.uint8)
        assert jax.eval_shape(pretrained.apply, shapes, images)[1].shape == (2, features)


@pytest.mark.parametrize(("side", "size", "stride"), [(8, 3, 1), (8, 3, 2), (9, 5, 2), (7, 5, 1)])
def test_depthwise_convolution_by_shifts(side, size, stride):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, side, side + 2, 3), np.float32)
    kernel = rng.standard_normal((size, size, 1, 3), np.float32)
    found = depthwise_conv_by_shifts(x, kernel, (stride, stride))
    plain = nn.Conv(3, (size, size), stride, feature_group_count=3, use_bias=False)
    expected = plain.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_grey_is_repeated_and_values_are_as_each_network_takes_them():
    grey = np.full((1, 4, 4, 1), 255, np.uint8)
    for pretrained, low, high in (
        (INCEPTION, -1.0, 127 / 128),
        (EFFLITE0, -127 / 128, 1.0),
        (PRETRAINED["dinov2_vits14"], -0.485 / 0.229, (1 - 0.485) / 0.229),
    ):
        white, black = pretrained.preprocess(grey), pretrained.preprocess(0 * grey)
        assert white.shape == (1, pretrained.size, pretrained.size, 3)
        np.testing.assert_allclose(white[..., 0], high, atol=1e-5)
        np.testing.assert_allclose(black[..., 0], low, atol=1e-5)
    assert "(x - 127) / 128" in EFFLITE0.preprocessing
    assert "TensorFlow 1" in INCEPTION.preprocessing


@pytest.mark.slow
def test_the_trained_weights_of_the_package():
    path = packaged(EFFLITE0)
    if path is None:
        pytest.skip(f"{EFFLITE0.package} is not installed: see requirements-dev.txt")
    extractor = load_pretrained("efflite0", path)
    logits, features = extractor(REFERENCE["images"])
    assert relative_error(logits, REFERENCE["trained_logits"]) < 2e-5
    assert relative_error(features, REFERENCE["trained_features"]) < 2e-5
    assert extractor.digest == "579344248a93"
    assert not extractor.own_classes
