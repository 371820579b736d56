"""Metrics of nearest neighbours: improved precision and recall, distance to the training data."""

from collections.abc import Iterator

import numpy as np

CHUNK = 512


def nearest_distances(queries: np.ndarray, references: np.ndarray, k: int = 1) -> np.ndarray:
    """Euclidean distance from each query `[N, D]` to its `k`-th nearest reference `[M, D]`: `[N]`.

    A query that is itself among the references counts as its own nearest.
    """
    nearest = [
        np.partition(squares, k - 1, axis=1)[:, k - 1]
        for squares in _square_distances(queries, references)
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0))


def covered(queries: np.ndarray, references: np.ndarray, k: int = 3) -> np.ndarray:
    """Which queries lie in the estimated manifold of the references: bool `[N]`.

    The manifold is the union of the balls around each reference that reach its `k`-th nearest
    other one (Eq. 2, Kynkaanniemi et al. 2019). Precision is the mean over samples with real
    references, recall that over real images with samples as references.
    """
    radii = nearest_distances(references, references, k + 1) ** 2
    within = [(d <= radii).any(1) for d in _square_distances(queries, references)]
    return np.concatenate(within)


def _square_distances(queries: np.ndarray, references: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances `[CHUNK, M]` of one chunk of queries after the other."""
    references = np.asarray(references, np.float32)
    squares = (references**2).sum(1)
    for start in range(0, len(queries), CHUNK):
        part = np.asarray(queries[start : start + CHUNK], np.float32)
        yield (part**2).sum(1)[:, None] + squares - 2 * part @ references.T
