"""Destroyed pixels of pictures of any size, and the observation without them."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.restoration.detector import Detector, lost, without
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.types import Array, Params

SIZE = 16


@pytest.mark.parametrize("shape", [(16, 16, 3), (5, 7, 3), (40, 23, 1)])
def test_pictures_of_any_size(shape: tuple[int, ...]) -> None:
    """A network that looks at one pixel finds the same with tiles as without."""

    def odds(params: Params, x: Array) -> Array:
        assert x.shape[1:] == (SIZE, SIZE, shape[-1])
        return params * x.mean(-1, keepdims=True)

    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    found = Detector(odds, jnp.array(3.0), SIZE)(x)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-3 * x.mean(-1))), atol=1e-6)


def test_the_mask_is_dilated() -> None:
    probability = np.zeros((7, 9))
    probability[3, 4], probability[6, 8] = 0.6, 0.4
    for dilate in (0, 1, 2):
        found = lost(probability, 0.5, dilate)
        want = np.zeros((7, 9), bool)
        want[3 - dilate : 4 + dilate, 4 - dilate : 5 + dilate] = True
        np.testing.assert_array_equal(found, want)
    assert lost(probability, 0.4, 0)[6, 8]


def test_what_is_lost_is_not_seen() -> None:
    y, gone = np.ones((1, 3, 4, 3), np.float32), np.zeros((3, 4), bool)
    gone[1, 2] = True
    seen = without(Observation(jnp.asarray(y), Mask(jnp.ones((1, 3, 4, 1))), jnp.zeros(1)), gone)
    np.testing.assert_array_equal(seen.y[0, ..., 0], ~gone)
    np.testing.assert_array_equal(seen.operator(y), seen.y)
