"""Codecs: mappings of data items to the space of diffusion."""

import jax
import numpy as np

from diffusion_jax.codecs.codec import Identity
from tests.oracles import keys_of


def test_identity_is_data_as_they_are_whatever_the_key():
    codec, x = Identity((3, 2), 1.0, 256), np.random.default_rng(0).normal(size=(4, 3, 2))
    for seed in (1, 2):
        np.testing.assert_array_equal(codec.encode({}, x, keys_of(4, seed)), x)
    np.testing.assert_array_equal(codec.decode({}, x), x)
    assert (codec.shape, codec.limit, codec.levels) == ((3, 2), 1.0, 256)


def test_identity_is_of_continuous_data_without_a_limit_unless_told():
    assert (Identity((3,)).limit, Identity((3,)).levels) == (None, 0)


def test_identity_runs_in_a_compiled_program(x64):
    codec, x = Identity((2,)), np.arange(6.0).reshape(3, 2)
    run = jax.jit(lambda x, keys: codec.decode({}, codec.encode({}, x, keys)))
    np.testing.assert_array_equal(run(x, keys_of(3)), x)
