"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before jax is imported: keeps XLA quiet

import jax
import pytest


@pytest.fixture
def x64():
    """Runs the test in float64: identities hold to 1e-10 there, mistakes do not."""
    with jax.enable_x64(True):
        yield
