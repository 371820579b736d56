"""Average precision and overlap, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score

from diffusion_jax.metrics.detection import BINS, average_precision, counts, iou


def test_against_scikit_learn() -> None:
    """Scores are told apart to 1 / BINS; ties are in one step."""
    rng = np.random.default_rng(0)
    mask = rng.random((5, 7, 9, 1)) < 0.3
    scores = np.clip(0.4 * mask + 0.3 + 0.2 * rng.standard_normal(mask.shape), 0, 1)
    binned, of = np.floor(scores * BINS) / BINS, counts(scores, mask)
    assert of.shape == (5, 2, BINS)
    want = average_precision_score(mask.ravel(), binned.ravel())
    assert average_precision(of) == pytest.approx(want, abs=1e-12)
    assert average_precision(of[[0, 0, 3]]) == pytest.approx(
        average_precision_score(mask[[0, 0, 3]].ravel(), binned[[0, 0, 3]].ravel()), abs=1e-12
    )
    for threshold in (0.25, 0.5, 0.75):
        want = jaccard_score(mask.ravel(), scores.ravel() >= threshold)
        assert iou(of, threshold) == pytest.approx(want, abs=1e-12)


def test_without_a_mask() -> None:
    of = counts(np.zeros((2, 4)), np.zeros((2, 4)))
    assert np.isnan(average_precision(of))
    assert np.isnan(iou(of))
