"""Moments of reference sets: computed once and cached, or read from published files."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax.data import DataError
from diffusion_jax.metrics.frechet import Moments
from diffusion_jax.system.cache import cached
from diffusion_jax.system.files import local_copy

# Names of mean and covariance in files of pytorch-fid and guided-diffusion, and in others.
KEYS = (("mu", "sigma"), ("ref_mu", "ref_sigma"))


class Statistics(NamedTuple):
    """Moments of features from a file."""

    moments: Moments
    words: str  # that identify them in passports


def read_statistics(path: Path) -> Statistics:
    """Reads mean `[D]` and covariance `[D, D]` from `.npz`; images in the file are not read.

    Raises:
        DataError: one sentence on what is wrong with the file.
    """

    def wrong(what: str) -> DataError:
        return DataError(f"evaluate.reference={path}: {what}")

    try:
        with local_copy(path) as here, np.load(here) as file:
            there = list(file)
            names = next((pair for pair in KEYS if set(pair) <= set(there)), ())
            arrays = [np.asarray(file[name], np.float64) for name in names]
    except OSError as error:
        raise wrong(error.strerror or "is not an .npz file") from error
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise wrong("is not an .npz file of numbers") from error
    if not names:
        raise wrong(
            f"holds {', '.join(there)}, and must hold mu and sigma, or ref_mu and ref_sigma"
        )
    mean, covariance = arrays
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise wrong(
            f"{names[0]} is {mean.shape} and {names[1]} {covariance.shape}, not (D,), (D, D)"
        )
    scale = np.abs(covariance).max(initial=0.0)
    symmetric = np.allclose(covariance, covariance.T, rtol=0, atol=1e-5 * scale)
    if not np.isfinite(mean).all() or not symmetric or (np.diag(covariance) < 0).any():
        raise wrong(f"{names[1]} is not a covariance, or not all numbers are finite")
    digest = hashlib.sha256(mean.tobytes() + covariance.tobytes()).hexdigest()[:12]
    return Statistics(Moments(mean, covariance), f"{path.name} {digest}")


def cached_moments(folder: Path, key: str, compute: Callable[[], Moments]) -> Moments:
    """Moments, `cached` by a key of the extractor's weights and inputs, in pytorch-fid's format."""

    def write(path: Path) -> None:
        found = compute()
        with path.open("wb") as file:
            np.savez(file, mu=found.mean, sigma=found.covariance)

    return cached(folder, key, ".npz", lambda path: read_statistics(path).moments, write)
