"""A run in an object store, killed and resumed, ends bit-identical to one on a disk."""

import os
from pathlib import Path

import pytest

from experiments.survival.emulators import NEEDED, emulated, missing
from experiments.survival.stores import compare, make_data

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", NEEDED)
def test_a_killed_run_in_a_store(scheme: str, tmp_path: Path, monkeypatch) -> None:
    """By the real command line, with its data in the store, sampled and evaluated."""
    if absent := missing(scheme):
        pytest.skip(f"needs {', '.join(absent)} of experiments/survival/requirements.txt")
    make_data(tmp_path / "data")
    with emulated(scheme) as environment:
        for name, value in environment.items():
            monkeypatch.setitem(os.environ, name, value)
        found = compare(scheme, tmp_path, steps=15, kills=1)
    assert found["same_bits"]
    assert 0 < found["killed_at"][0] <= 15
