"""Operators of sound as configured, and files seen through them."""

from pathlib import Path

import numpy as np
import pytest

from configs import default
from diffusion_jax.data.sound import Sound
from diffusion_jax.from_config.restoration import observe
from diffusion_jax.restoration.operators import Mask
from tests.data.test_sound_files import write

KIND = Sound((64, 1), 8_000)


@pytest.mark.parametrize(("operator", "factor"), [("beginning", 1), ("decimate+beginning", 2)])
@pytest.mark.parametrize("length", [30, 37])
@pytest.mark.parametrize("share", [0.37, 0.5, 0.9])
def test_a_file_is_the_beginning_of_what_is_seen(
    operator: str, factor: int, length: int, share: float, tmp_path: Path
) -> None:
    """All of it is known and no more; simulated, that share of the file is."""
    x = np.random.default_rng(0).uniform(-0.5, 0.5, length)
    path = write(tmp_path / "a.wav", x, KIND.rate // factor)
    config = default.get_config()
    config.restore.operator, config.restore.beginning.share = operator, share
    seen = observe(config, KIND, path)
    whole = round(length / share)
    assert seen.shape == (whole * factor, 1)
    y = np.asarray(seen.observation.y)
    np.testing.assert_allclose(y[0, :length, 0], x, atol=4e-5)
    assert y.shape == (1, whole, 1)
    assert not y[:, length:].any()
    found = seen.observation.operator(np.ones((1, *seen.shape), np.float32))
    np.testing.assert_allclose(found[0, :, 0], np.arange(whole) < length, atol=1e-5)
    if factor == 1:
        config.restore.simulate = True
        seen = observe(config, KIND, path)
        assert seen.shape == (length, 1)
        assert isinstance(seen.observation.operator, Mask)
        assert seen.observation.operator.known.sum() == round(length * share)
