"""Outputs of frozen encoders are computed once and cached."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.system.cache import cached_outputs

INPUTS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


def test_outputs_are_computed_once_in_chunks_of_one_shape(tmp_path: Path) -> None:
    asked = []

    def encode(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return 2 * INPUTS[rows]

    for _ in range(2):
        found = cached_outputs(tmp_path / "new", "encoder a", encode, 10, chunk=4)
        np.testing.assert_array_equal(found, 2 * INPUTS)
        assert found.dtype == np.float32
    assert [rows.tolist() for rows in asked] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]]
    # Another encoder has a file of its own; one that was cut off is made again.
    other = cached_outputs(tmp_path / "new", "encoder b", lambda rows: INPUTS[rows], 10)
    np.testing.assert_array_equal(other, INPUTS)
    for path in (tmp_path / "new").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    again = cached_outputs(tmp_path / "new", "encoder a", encode, 10)
    np.testing.assert_array_equal(again, 2 * INPUTS)
    assert len(asked) == 4


def test_nothing_remains_of_an_encoder_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        cached_outputs(
            tmp_path, "encoder", lambda rows: INPUTS[rows] if 0 in rows else 1 // 0, 9, 4
        )
    assert list(tmp_path.iterdir()) == []
