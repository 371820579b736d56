"""The 95% intervals contain the true values, in simulations where these are known.

A small version of `experiments/intervals`, whose table has more distributions and sizes.
"""

import functools

import numpy as np
import pytest

from experiments.intervals.simulate import Law, Setting, coverages

METRICS = (
    *("frechet", "frechet_infinite", "kernel", "sliced_wasserstein", "accuracy"),
    *("inception_score", "inception_score_infinite", "precision", "recall", "density"),
    *("coverage", "memorised", "nearest"),
)


@functools.cache
def simulated() -> dict[str, tuple[float, float]]:
    setting = Setting(Law(4, 0.2, 1.1), 120, 120, num_heldout=100)
    return coverages(setting, repeats=200, draws=200, many=20_000)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_intervals_contain_the_truth(metric: str) -> None:
    truth, share = simulated()[metric]
    assert np.isfinite(truth)
    assert 0.90 <= share <= 0.99


@pytest.mark.slow
def test_every_metric_is_there() -> None:
    assert set(simulated()) == set(METRICS)
