"""Differences between the passports of one table, and moments computed by others."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.data import DataError
from diffusion_jax.evaluation.references import cached_moments, read_statistics
from diffusion_jax.metrics.frechet import Moments
from diffusion_jax.report.passports import differences


def test_differences_are_said_field_by_field() -> None:
    def entry(n: int, **passport: object) -> dict:
        return {"value": 1.0, "n": n, "passport": passport}

    runs = {
        "a": entry(9, steps=25, extractor="x 1", likelihood={"probes": 2}),
        "b": entry(9, steps=50, extractor="x 1", likelihood={"probes": 2}),
        "c": entry(8, steps=25, likelihood={"probes": 2}),
    }
    assert differences(runs) == [
        "n differs: 9 in a, b; 8 in c",
        "steps differs: 25 in a, c; 50 in b",
        "extractor differs: x 1 in a, b; not said in c",
    ]
    assert differences(runs, but=("steps", "n")) == differences(runs)[2:]
    assert differences({"a": runs["a"], "again": runs["a"]}) == differences({}) == []


COVARIANCE = np.array([[2.0, 0.5], [0.5, 1.0]])


@pytest.mark.parametrize("names", [("mu", "sigma"), ("ref_mu", "ref_sigma")])
def test_statistics_are_read(tmp_path: Path, names: tuple[str, str]) -> None:
    more = {"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "mu_s": np.ones(3)}  # as ADM's files have
    values = dict(zip(names, (np.ones(2, np.float32), COVARIANCE), strict=True))
    np.savez(tmp_path / "stats.npz", **more, **values)
    found = read_statistics(tmp_path / "stats.npz")
    np.testing.assert_array_equal(found.moments.mean, np.ones(2))
    np.testing.assert_array_equal(found.moments.covariance, COVARIANCE)
    assert found.words.startswith("stats.npz ")
    np.savez(tmp_path / "other.npz", mu=np.zeros(2), sigma=COVARIANCE)
    assert read_statistics(tmp_path / "other.npz").words.split()[1] != found.words.split()[1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"no archive", "is not an .npz file"),
        ({"mean": np.ones(2)}, "holds mean, and must hold mu and sigma"),
        ({"mu": np.ones(3), "sigma": COVARIANCE}, r"mu is \(3,\) and sigma \(2, 2\)"),
        ({"mu": np.ones(2), "sigma": np.array([[2, 0.5], [0.1, 1]])}, "sigma is not a covariance"),
        ({"mu": np.array([1, np.nan]), "sigma": COVARIANCE}, "not all numbers are finite"),
    ],
)
def test_wrong_statistics_are_refused_in_a_sentence(
    tmp_path: Path, content: object, says: str
) -> None:
    path = tmp_path / "stats.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    with pytest.raises(DataError, match=says) as refused:
        read_statistics(path)
    assert str(refused.value).startswith(f"evaluate.reference={path}: ")
    assert "\n" not in str(refused.value)


def test_moments_are_computed_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> Moments:
        calls.append(1)
        return Moments(np.ones(2), COVARIANCE)

    for key in ("a", "a", "b"):
        found = cached_moments(tmp_path, key, compute)
        np.testing.assert_array_equal(found.covariance, COVARIANCE)
    assert len(calls) == 2
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    cached_moments(tmp_path, "a", compute)
    assert len(calls) == 3
