"""Experiments on restoration still run, as small as possible."""

from pathlib import Path

import numpy as np
import pytest

from experiments.restoration import calibration


def test_calibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exact samples of a known posterior are calibrated, and those of DPS are not."""
    monkeypatch.setattr(calibration, "TOGETHER", 60)
    names = [calibration.EXACT, "DPS"]
    found = calibration.rounded(calibration.compare(calibration.of_mixture(), names, 60, 20))
    cells = found["mask"]
    assert list(cells) == names
    least, tests = calibration.threshold(found)
    assert (least, tests) == (0.05 / 6, 6)
    rows = calibration.tables(found).splitlines()[-2:]
    assert ["| calibrated |" in row for row in rows] == [True, False]
    np.testing.assert_allclose(np.sum(cells["DPS"]["all"]["histogram"]), 1, rtol=1e-3)
    calibration.draw(found, tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size


def test_coordinates_that_are_not_seen() -> None:
    """They are 0 in the part of `x` that an operator shows, and that part is all it shows."""
    model = calibration.of_mixture()._replace(shape=(8, 8, 1))
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    for name in ("mask", "downscale"):
        operator = calibration.operators(model)[name]
        values, analyse, synthesise, _ = operator.spectrum(x)
        shown = np.asarray(synthesise(np.where(values > calibration.SEEN, analyse(x), 0)))
        of_all, of_seen, of_unseen = calibration.features(operator, x).values()
        assert of_all(x).shape == of_seen(x).shape == (5, calibration.FEATURES)
        np.testing.assert_allclose(of_seen(x), of_seen(shown), atol=1e-5)
        np.testing.assert_allclose(of_unseen(shown), 0, atol=1e-5)
        assert np.abs(of_unseen(x)).min(0).max() > 0.1
        np.testing.assert_allclose(operator(x), operator(shown), atol=1e-5)
