"""PSNR and SSIM against their definitions and scikit-image's values.

The latter are in `reference/fidelity.json`, made by `reference/make_fidelity.py`.
"""

import ast
import json
import pathlib

import numpy as np
import pytest

from diffusion_jax.metrics.fidelity import psnr, ssim

REFERENCE = pathlib.Path(__file__).parents[1] / "reference" / "fidelity.json"
VALUES = {
    ast.literal_eval(shape): each for shape, each in json.loads(REFERENCE.read_text()).items()
}


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The same in `reference/make_fidelity.py`."""
    rng = np.random.default_rng(len(shape))
    smooth = np.cumsum(rng.normal(size=shape), axis=1)
    a = np.tanh(smooth / 3)
    return a, np.clip(0.8 * a + 0.2 * rng.normal(size=shape), -1, 1)


@pytest.mark.parametrize("shape", VALUES, ids=str)
def test_ssim_is_that_of_scikit_image_with_any_number_of_axes(shape: tuple[int, ...]) -> None:
    a, b = pair(shape)
    np.testing.assert_allclose(ssim(a, b, data_range=2), VALUES[shape], rtol=0, atol=1e-9)
    np.testing.assert_allclose(ssim(a, a, data_range=2), 1, rtol=1e-12)


def test_ssim_names_an_array_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match=r"\(1, 64, 10, 3\) has an axis shorter .* of 11"):
        ssim(np.zeros((1, 64, 10, 3)), np.zeros((1, 64, 10, 3)), data_range=2)


def test_psnr_of_a_known_error_of_each_pair() -> None:
    """A tenth of the range everywhere is 20 dB, at one of four places 26; equal arrays have 100."""
    a = np.zeros((3, 2, 2), np.uint8)
    b = a.copy()
    b[0] = 51
    b[1, 0, 0] = 51
    expected = [20, 20 + 10 * np.log10(4), 100]
    np.testing.assert_allclose(psnr(a, b, data_range=510), expected)
    np.testing.assert_allclose(psnr(b, a, data_range=510), expected)
