"""Non-linear operators: derivatives, definitions, and JPEG against Pillow's."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from diffusion_jax.restoration.jpeg import _CHROMINANCE, _LUMINANCE, JPEG
from diffusion_jax.restoration.nonlinear import TOE, Clipping, Gamma, Halftone
from diffusion_jax.restoration.operators import linearised

PAIR = jnp.array([0.6, 2.2])
OPERATORS: dict[str, Any] = {
    "gamma": Gamma(PAIR),
    "clipping": Clipping(-PAIR / 3, PAIR / 3),
    "halftone": Halftone(4 * PAIR, PAIR / 3),
    "jpeg": JPEG(30 * PAIR),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_derivative(x64: None, name: str) -> None:
    """`<A' d, y> = <d, A'^T y>`, a difference quotient, and independence of the batch."""
    operator = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), OPERATORS[name])
    keys = jax.random.split(jax.random.key(1), 3)
    x, d, y = (jax.random.uniform(key, (2, 9, 18, 3), jnp.float64, -0.9, 0.9) for key in keys)

    @jax.jit
    def found(x: Any, d: Any, y: Any) -> Any:
        value, forward, adjoint = linearised(operator, x)
        change = forward(d)
        alone = jax.tree.map(lambda leaf: leaf[1:], operator)(x[1:])
        quotient = (operator(x + 1e-6 * d) - operator(x - 1e-6 * d)) / 2e-6
        return (jnp.sum(change * y), jnp.sum(d * adjoint(y))), (value[1:], alone), change, quotient

    inner, samples, change, quotient = found(x, d, y)
    np.testing.assert_allclose(*inner, rtol=1e-12)
    np.testing.assert_allclose(*samples, atol=1e-12)
    if name != "jpeg":  # its rounding has the derivative of the identity
        np.testing.assert_allclose(change, quotient, atol=1e-6)


def test_gamma_has_its_end_points_and_finite_slopes() -> None:
    operator = Gamma(PAIR)
    x = jnp.tile(jnp.array([-1.0, -0.5, 1.0, -1.2]), (2, 1))[..., None]
    value, forward, _ = linearised(operator, x)
    unit = np.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(value[:, :3, 0], 2 * unit ** np.array(PAIR)[:, None] - 1, atol=1e-6)
    assert np.all(value[:, 3] < -1)
    assert np.isfinite(forward(jnp.ones_like(x))).all()
    at_toe = operator(jnp.tile(2 * TOE * jnp.array([1 - 1e-3, 1 + 1e-3]) - 1, (2, 1))[..., None])
    np.testing.assert_allclose(at_toe[:, 0], at_toe[:, 1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_halftone_keeps_the_tone_of_an_even_area(channels: int) -> None:
    for tone in (-0.8, -0.3, 0.5):
        y = Halftone(jnp.array([7.3]), jnp.array([1e-3]))(jnp.full((1, 80, 80, channels), tone))
        np.testing.assert_allclose(y.mean((1, 2)), tone, atol=0.03)
        assert np.mean(np.abs(y) > 0.99) > 0.97  # black or white


def by_pillow(image: np.ndarray, quality: int, subsampled: bool) -> np.ndarray:
    """Written as JPEG and read again, on [-1, 1]."""
    file = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.save(file, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    return np.asarray(Image.open(file), np.float32).reshape(image.shape) / 127.5 - 1


@pytest.mark.parametrize(("channels", "subsampled"), [(3, True), (3, False), (1, True)])
def test_jpeg_is_that_of_pillow(channels: int, subsampled: bool) -> None:
    """PSNR of more than 40 dB, and 8 dB above that of either to the photograph."""
    image = load_sample_image("china.jpg")[200:289, 150:251, :channels]
    qualities = [10, 40, 75, 95]
    x = jnp.tile(jnp.asarray(image / 127.5 - 1, jnp.float32), (4, 1, 1, 1))
    operator = JPEG(jnp.array(qualities, jnp.float32), subsampled)
    made = np.asarray(jax.jit(lambda x: operator(x))(x))
    for quality, ours in zip(qualities, made, strict=True):
        theirs = by_pillow(image, quality, subsampled)
        error, loss = (10 * np.log10(4 / np.mean((theirs - a) ** 2)) for a in (ours, x[0]))
        assert error > max(40, loss + 8)


@pytest.mark.parametrize("quality", [1, 13, 37, 50, 76, 99, 100])
def test_tables_are_those_of_pillow(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    written = Image.open(file).quantization  # type: ignore[attr-defined]
    for number, table in enumerate((_LUMINANCE, _CHROMINANCE)):
        steps = JPEG(jnp.array([float(quality)]))._steps(table)
        np.testing.assert_array_equal(steps.reshape(-1), written[number])
