"""ST-LPIPS compared with its published code, from a file of weights to distances.

The results of that code are in `reference/stlpips.json`, made by `reference/make_stlpips.py`.
"""

import ast
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.evaluation.perceptual import PACKAGE, load_stlpips, packaged
from diffusion_jax.models.stlpips import blur_pool, unit
from diffusion_jax.models.weights import WeightsError
from tests.torch_files import write_arrays

REFERENCE = pathlib.Path(__file__).parents[1] / "reference" / "stlpips.json"
STORED = json.loads(REFERENCE.read_text())
SIZES = [ast.literal_eval(size) for size in STORED["drawn"]]


def pair(size):
    """The same in `reference/make_stlpips.py`."""
    rng = np.random.default_rng(size[0])
    a = np.tanh(np.cumsum(rng.normal(size=(3, *size, 3)), axis=1) / 3)
    level = np.array([0, 0.1, 0.5])[:, None, None, None]
    b = np.clip(0.9 * a + level * rng.normal(size=a.shape), -1, 1)
    return a.astype(np.float32), b.astype(np.float32)


def drawn(name, shape):
    """The same in `reference/make_stlpips.py`."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    scale = np.float32(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else np.float32(0.1)
    return np.abs(x * scale) if name.startswith("lin") else x * scale


@pytest.fixture(scope="module")
def weights():
    return {name: drawn(name, shape) for name, shape in STORED["shapes"].items()}


@pytest.fixture(scope="module")
def distance(weights, tmp_path_factory):
    return load_stlpips(write_arrays(tmp_path_factory.mktemp("w") / "w.pth", weights))


def assert_published(distance, key, size):
    np.testing.assert_allclose(distance(*pair(size)), STORED[key][str(size)], rtol=1e-4)


def test_blurred_pixels_by_hand():
    """A ramp stays one; the border is that of the ramp reflected at its first and last pixel."""
    x = jnp.arange(6.0)[None, :, None, None] * jnp.ones((1, 6, 4, 1))
    found = blur_pool(x)
    assert found.shape == (1, 4, 3, 1)
    np.testing.assert_allclose(found[0, :, 1, 0], [1, 1, 3, 4.5])
    np.testing.assert_allclose(found, jnp.broadcast_to(found[:, :, :1], found.shape))


def test_distances_are_those_of_the_published_code(distance):
    assert_published(distance, "drawn", (45, 38))
    a, b = pair((45, 38))
    assert np.abs(distance(a, a)).max() == 0
    grey = b[..., :1]
    assert np.abs(distance(grey, np.repeat(grey, 3, axis=-1))).max() == 0


def test_the_gradient_is_finite_where_all_features_are_0():
    x = jnp.zeros((1, 1, 1, 4))
    assert jnp.isfinite(jax.grad(lambda a: unit(a).sum())(x)).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [size for size in SIZES if size != (45, 38)], ids=str)
def test_distances_of_other_sizes(distance, size):
    assert_published(distance, "drawn", size)


def test_what_does_not_fit_is_named(weights, distance, tmp_path):
    small = jnp.zeros((1, 64, 20, 3))
    with pytest.raises(ValueError, match=r"\(1, 64, 20, 3\) is less than 21 pixels"):
        distance(small, small)
    fewer = {name: array for name, array in weights.items() if name != "lin3.model.1.weight"}
    with pytest.raises(
        WeightsError, match=r"ST-LPIPS has a tensor lin3\.model\.1\.weight \[1, 256"
    ):
        load_stlpips(write_arrays(tmp_path / "w.pth", fewer))


def test_distances_with_the_weights_of_the_package():
    path = packaged()
    if path is None:
        pytest.skip(f"{PACKAGE} is not installed: see requirements-dev.txt")
    assert_published(load_stlpips(path), "trained", (45, 38))
