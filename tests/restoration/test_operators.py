"""Linear operators: adjoints, decompositions and definitions, for sound and for images."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from diffusion_jax.restoration.likelihood import in_coordinates
from diffusion_jax.restoration.linear import (
    LUMA,
    Blur,
    Composed,
    Crop,
    Downscale,
    Fading,
    GaussianBlur,
    Grey,
    ReflectedBlur,
    gaussian_kernel,
)
from diffusion_jax.restoration.operators import (
    Decomposed,
    Identity,
    Mask,
    Observation,
    linearised,
)

BATCH = 2
SHAPES = ((12, 2), (6, 9, 3))
"""Of sound and of an image."""


def operators(shape: tuple[int, ...], rng: Any) -> dict[str, Any]:
    """One of each for data of a `shape`, with parameters drawn for each sample of two."""
    *sides, c = shape
    ones = (1,) * len(sides)
    kernel = rng.uniform(-0.2, 1, (BATCH, *(3 + i for i in range(len(sides)))))
    width = rng.uniform(0.3, 2, BATCH)
    made: dict[str, Any] = {
        "identity": Identity(),
        "mask": Mask(rng.uniform(size=(BATCH, *sides, 1)) * (rng.uniform(size=(*sides, c)) < 0.5)),
        "blur": Blur(kernel),
        "reflected_blur": ReflectedBlur(kernel),
        "gaussian_blur": GaussianBlur(width),
        "downscale": Downscale(3),
        "grey": Grey(rng.uniform(size=(BATCH, c))),
        "fading": Fading(
            rng.uniform(-1, 1, (BATCH, *ones, c)), rng.uniform(size=(BATCH, *ones, c))
        ),
        "crop": Crop((1,) * len(sides), (4,) * len(sides)),
    }
    made["composed"] = Composed(made["downscale"], Composed(made["blur"], made["mask"]))
    return jax.tree.map(jnp.asarray, made, is_leaf=lambda leaf: isinstance(leaf, np.ndarray))


NAMES = tuple(operators(SHAPES[0], np.random.default_rng(0)))
each = pytest.mark.parametrize("name", NAMES)
of_shapes = pytest.mark.parametrize("shape", SHAPES)


def norm(x: Any) -> Any:
    return jnp.sqrt(jnp.sum(x**2))


@pytest.mark.parametrize(
    "shape",
    [pytest.param(shape, marks=[pytest.mark.slow] * (i > 0)) for i, shape in enumerate(SHAPES)],
)
@each
def test_linear(x64: None, name: str, shape: tuple[int, ...]) -> None:
    """Adjoint, decomposition, and independence of the batch."""
    rng = np.random.default_rng(len(name))
    operator = operators(shape, rng)[name]
    x, d = (jnp.asarray(rng.standard_normal((BATCH, *shape))) for _ in range(2))

    @jax.jit
    def found(operator: Any, x: Any, d: Any, key: Any) -> dict[str, Any]:
        value, forward, adjoint = linearised(operator, x)
        y = jax.random.normal(key, value.shape, value.dtype)
        made = {
            "linear": (value + forward(d), operator(x + d)),
            "adjoint": (jnp.sum(forward(d) * y), jnp.sum(d * adjoint(y))),
        }
        if not isinstance(operator, Decomposed):
            return made
        values, analyse, synthesise, observed = operator.spectrum(x)
        z = analyse(x)
        u = observed(y + value - forward(x))
        return made | {
            "inverse": (synthesise(z), x),
            "norm": (norm(z), norm(x)),
            "observed": (observed(value), values * z),
            "of any y": (adjoint(y), synthesise(values * u)),
            "unseen": (jnp.where(values > 0, 0.0, u), 0 * z),
        }

    for what, (one, other) in found(operator, x, d, jax.random.key(3)).items():
        np.testing.assert_allclose(one, other, atol=1e-12, rtol=1e-12, err_msg=what)
    alone = jax.tree.map(lambda leaf: leaf[1:], operator)(x[1:])
    np.testing.assert_allclose(alone, operator(x)[1:], atol=1e-12)


def test_only_some_are_decomposed() -> None:
    made = operators(SHAPES[0], np.random.default_rng(0))
    assert {n for n in NAMES if not isinstance(made[n], Decomposed)} == {
        "reflected_blur",
        "composed",
    }


def test_blur_is_convolution(x64: None) -> None:
    rng = np.random.default_rng(0)
    kernel, x = rng.standard_normal((1, 3, 5)), rng.standard_normal((1, 8, 9, 2))
    for made, mode in ((Blur(kernel), "wrap"), (ReflectedBlur(kernel), "reflect")):
        for c in range(2):
            expected = ndimage.convolve(x[0, ..., c], kernel[0], mode=mode)
            np.testing.assert_allclose(made(x)[0, ..., c], expected, atol=1e-12, err_msg=mode)


def test_gaussian_blur_is_that_of_its_kernel(x64: None) -> None:
    """Above a pixel a sampled Gaussian is as good as the heat equation."""
    x, width = np.random.default_rng(0).standard_normal((2, 24, 20, 1)), jnp.array([1.2, 2.0])
    kernel = gaussian_kernel(width, 31, 2)
    blur = jax.jit(lambda width: GaussianBlur(width)(x))
    sampled = jax.jit(lambda: ReflectedBlur(kernel)(x))()
    np.testing.assert_allclose(blur(width), sampled, atol=2e-3)
    np.testing.assert_allclose(kernel.sum((1, 2)), 1, atol=1e-12)
    np.testing.assert_allclose(blur(jnp.zeros(2)), x, atol=1e-12)


def test_definitions() -> None:
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32))
    grey = Grey(jnp.tile(jnp.array(LUMA), (2, 1)))(x)
    np.testing.assert_allclose(
        grey[..., 0], np.asarray(x) @ np.array([0.299, 0.587, 0.114]), atol=1e-6
    )
    np.testing.assert_allclose(Downscale(2)(x)[:, 1, 0], x[:, 2:, :2].mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(Crop((1, 0), (2, 3))(x), x[:, 1:3, :3])


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        (Downscale(3), "factor=3 must divide the sides of the data, 8 x 6"),
        (
            Crop((4, 0), (5, 2)),
            "size=(5, 2) from start=(4, 0) does not lie in data of shape (8, 6)",
        ),
        (Crop((1,), (5,)), "size=(5,) from start=(1,) does not lie in data of shape (8, 6)"),
        (
            Blur(jnp.ones((1, 9, 3))),
            "kernel of shape (9, 3) does not fit into data of shape (8, 6)",
        ),
        (Blur(jnp.ones((1, 3))), "kernel of shape (3,) does not fit into data of shape (8, 6)"),
    ],
)
def test_what_does_not_fit_is_refused(operator: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        operator(jnp.zeros((1, 8, 6, 3)))


@pytest.mark.parametrize(
    ("y", "sigma", "says"),
    [
        (np.full((2, 8, 6, 1), 200, np.uint8), np.zeros(2), "y is uint8: observations are floats"),
        (np.full((2, 8, 6, 1), np.nan), np.zeros(2), "y is not finite"),
        (jnp.zeros((2, 8, 6, 1)), jnp.zeros(3), "sigma is of shape (3,) and y of (2, 8, 6, 1)"),
        (jnp.zeros((8, 6, 1)), jnp.zeros(2), "sigma is of shape (2,) and y of (8, 6, 1)"),
        (np.zeros((2, 8, 6, 1)), np.zeros(()), "sigma is of shape () and y of (2, 8, 6, 1)"),
        (np.zeros((2, 8, 6, 1)), np.array([0.1, -0.1]), "must be finite and >= 0"),
        (np.zeros((2, 8, 6, 1)), np.array([0.1, np.nan]), "must be finite and >= 0"),
    ],
)
def test_what_is_no_observation_is_refused(y: Any, sigma: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Observation(y, Identity(), sigma)


@pytest.mark.parametrize("name", ["mask", "gaussian_blur", "downscale", "fading"])
def test_pixels_in_0_to_255_are_refused(name: str) -> None:
    """In the program that samples, where y is a constant; the same picture on [-1, 1] is not."""
    rng = np.random.default_rng(0)
    operator = operators(SHAPES[1], rng)[name]
    x = jnp.asarray(rng.uniform(0, 255, (BATCH, *SHAPES[1])), jnp.float32)

    def residual(pixels: Any) -> Any:
        given = Observation(operator(pixels), operator, jnp.full(BATCH, 0.1))
        return jax.jit(lambda x: in_coordinates(x, given)[1])(x).shape

    assert residual(x / 127.5 - 1) == x.shape
    assert residual(x / 255) == x.shape  # cannot be told from a bright picture
    with pytest.raises(ValueError, match=r"y has values of up to \d+, and is of another scale"):
        residual(x)
