"""ESTOI against the published implementation, and where it is not defined."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.metrics.sound_estoi import estoi
from tests.reference.make_sound_metrics import RATES, pairs, voiced

PUBLISHED = json.loads((Path(__file__).parents[1] / "reference/sound_metrics.json").read_text())


@pytest.mark.parametrize("rate", RATES)
def test_it_is_that_of_pystoi(rate: int) -> None:
    """From clean to noise alone, one of them negative."""
    x, y = (np.stack(each)[..., None] for each in zip(*pairs(rate), strict=True))
    np.testing.assert_allclose(estoi(x, y, rate), PUBLISHED["estoi"][str(rate)], atol=1e-6)


def test_negative_values_are_kept() -> None:
    assert min(PUBLISHED["estoi"]["16000"]) < -0.01


def test_the_reference_has_1_and_the_level_does_not_count() -> None:
    x = voiced(10_000, 0)[None, :, None]
    np.testing.assert_allclose(estoi(x, 0.1 * x, 10_000), 1, atol=1e-6)
    y = x + 0.01 * np.random.default_rng(0).standard_normal(x.shape)
    np.testing.assert_allclose(estoi(x, y, 10_000), estoi(20 * x, y, 10_000), atol=1e-9)


def test_channels_are_averaged_and_recordings_are_not() -> None:
    (x, y), (u, v), *_ = pairs(10_000)
    of_each = [estoi(a[None, :, None], b[None, :, None], 10_000)[0] for a, b in ((x, y), (u, v))]
    both = estoi(np.stack([x, u], -1)[None], np.stack([y, v], -1)[None], 10_000)
    np.testing.assert_allclose(both, np.mean(of_each), atol=1e-12)
    np.testing.assert_allclose(
        estoi(np.stack([x, u])[..., None], np.stack([y, v])[..., None], 10_000), of_each
    )


def test_short_and_silent_recordings_are_not_defined() -> None:
    """A third of a second, digital silence, and 0.2 s of speech in silence; not 1e-5."""
    x = voiced(10_000, 0)[None, :, None]
    some = x * ((np.arange(x.shape[1]) < 2000)[:, None])
    for each in (x[:, :3500], x[:, :100], 0 * x, some):
        assert np.isnan(estoi(each, each, 10_000)).all()
    assert estoi(x, 0 * x, 10_000) == 0  # nothing of it is there
