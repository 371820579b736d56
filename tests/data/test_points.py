"""Points in the plane: their distribution, and samples as pure functions of their numbers."""

import sys

import numpy as np
import pytest
from scipy import stats

from diffusion_jax.data.sets.points import (
    POINTS,
    Law,
    Points,
    PointSource,
    catmull_rom,
    evenly,
    hashed,
    uniform,
)

every_set = pytest.mark.parametrize("name", POINTS)
NUM = 40_000


def samples(law, num=NUM, seed=0, draws=None):
    return PointSource(law, num, seed).gather(np.arange(num), draws)


@every_set
def test_a_law_is_a_table_in_the_scale_of_the_networks(name):
    law = POINTS[name]()
    assert law.means.dtype == np.float64
    assert law.labels.dtype == np.int32
    assert np.array_equal(np.unique(law.labels), np.arange(len(law.parts)))
    np.testing.assert_allclose(law.means.mean(axis=0), 0, atol=1e-12)
    assert law.means.var() + law.std**2 == pytest.approx(0.25)
    assert np.abs(law.means).max() < 1.3


@every_set
def test_samples_have_the_moments_and_labels_of_the_table(name):
    law = POINTS[name]()
    points, labels = samples(law)
    assert (points.dtype, labels.dtype) == (np.float32, np.int32)
    cov = np.cov(law.means.T, ddof=0) + law.std**2 * np.eye(2)
    scores = points.mean(axis=0) / np.sqrt(np.diag(cov) / NUM)
    assert np.abs(scores).max() < 4.5
    outer = points[:, :, None] * points[:, None] - cov
    assert np.abs(outer.mean(axis=0) / (outer.std(axis=0) / NUM**0.5)).max() < 4.5
    expected = NUM * np.bincount(law.labels) / len(law.labels)
    assert stats.chisquare(np.bincount(labels), expected).pvalue > 1e-5


def test_the_noise_is_normal_and_independent_between_axes():
    law = Law(np.zeros((1, 3)), np.zeros(1, np.int32), 2.0, ("all",))
    points = samples(law)[0] / 2
    assert abs(points.var() - 1) < 4.5 * (2 / points.size) ** 0.5
    assert min(stats.kstest(axis, "norm").pvalue for axis in points.T) > 1e-5
    assert np.abs(np.corrcoef(points.T)[np.triu_indices(3, 1)]).max() < 4.5 / NUM**0.5


def test_a_sample_is_a_function_of_seed_row_and_draw():
    law, rows = POINTS["spiral"](), np.array([7, 3, 39_999, 3])
    source = PointSource(law, NUM, seed=5)
    assert len(source) == NUM
    whole, labels = samples(law, seed=5)
    points, of_rows = source.gather(rows, np.zeros(4, np.uint64))
    np.testing.assert_array_equal(points, whole[rows])
    np.testing.assert_array_equal(of_rows, labels[rows])
    for other in (samples(law, seed=6), samples(law, seed=5, draws=np.ones(NUM, np.uint64))):
        assert len(np.intersect1d(whole[:, 0], other[0][:, 0])) < NUM / 100
        assert abs(np.corrcoef(whole[:, 0], other[0][:, 0])[0, 1]) < 4.5 / NUM**0.5
    swapped = source.gather(np.array([1]), np.array([2], np.uint64))[0]
    assert not np.array_equal(swapped, source.gather(np.array([2]), np.array([1], np.uint64))[0])


def test_the_hash_is_uniform_in_its_upper_and_lower_bits():
    words = hashed(np.arange(100_000, dtype=np.uint64))
    assert words[0] == 0xE220A8397B1DCDAF  # the first output of SplitMix64 for seed 0
    for bits in (words >> np.uint64(56), words & np.uint64(255)):
        assert stats.chisquare(np.bincount(bits.astype(int), minlength=256)).pvalue > 1e-5
    pairs = np.stack([uniform(words[:-1]), uniform(words[1:])])
    counts = np.histogram2d(*pairs, bins=16, range=[(0, 1)] * 2)[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-5
    assert uniform(np.array([2**64 - 1], np.uint64)) < 1


def test_rows_are_not_looped_over():
    def calls(num):
        found = []
        sys.setprofile(lambda frame, event, arg: found.append(event))
        try:
            samples(POINTS["moons"](), num)
        finally:
            sys.setprofile(None)
        return len(found)

    calls(10)
    assert calls(10) == calls(1000)


def test_curves_go_through_their_points_at_an_even_speed():
    control = np.array([[0.0, 0], [1, 0], [1, 2], [3, 3]])
    curve = catmull_rom(control, steps=5)
    np.testing.assert_allclose(curve[[0, 5, 10, 14]], control, atol=1e-12)
    corner = evenly(np.array([[0.0, 0], [3, 0], [3, 1]]), 4)
    np.testing.assert_allclose(corner, [[0.5, 0], [1.5, 0], [2.5, 0], [3, 0.5]])


@pytest.mark.filterwarnings("error")
def test_points_far_outside_are_left_out_of_a_sheet():
    """Also those beyond whole numbers, as a guidance scale of 1e38 makes them."""
    kind = Points((2,))
    far = np.array([[1e37, -1e37], [0.3, -0.2]], np.float32)
    np.testing.assert_array_equal(kind.sheet(far, 1), kind.sheet(far[1:], 1))
