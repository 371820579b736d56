"""The likelihood of continuous data, which are not discretised."""

import numpy as np

from diffusion_jax.evaluation.likelihood import bits_per_dimension, dequantise
from tests.oracles import keys_of


def test_only_data_in_levels_are_spread(x64):
    x = np.random.default_rng(0).integers(0, 5, (400, 3)) / 2 - 1
    np.testing.assert_array_equal(dequantise(x, keys_of(400), 0), x)
    spread = np.asarray(dequantise(x, keys_of(400), 5)) - x
    assert (abs(spread) <= 1 / 4).all()  # a bin is 2 / 4 wide
    assert spread.min() < -0.24
    assert spread.max() > 0.24
    assert abs(spread.mean()) < 5 * 0.5 / np.sqrt(12 * spread.size)


def test_bits_of_a_density_are_plain_bits_unless_it_has_levels():
    """Of an even law on [-1, 1] with half a bin more at each end, over 5 levels: log2(5) bits."""
    nats = np.array([3 * np.log(2.5)])
    np.testing.assert_allclose(bits_per_dimension(nats, 3), np.log2(2.5), rtol=1e-6)
    np.testing.assert_allclose(bits_per_dimension(nats, 3, 5), np.log2(5), rtol=1e-6)
