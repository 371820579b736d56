"""Metrics of nearest neighbours: improved precision and recall, distance to the training data."""

import numpy as np

CHUNK = 512


def nearest_distances(queries: np.ndarray, references: np.ndarray, k: int = 1) -> np.ndarray:
    """Euclidean distance from each query `[N, D]` to its `k`-th nearest reference `[M, D]`: `[N]`.

    A query that is itself among the references counts as its own nearest.
    """
    references = np.asarray(references, np.float32)
    squares = (references**2).sum(1)
    out = []
    for start in range(0, len(queries), CHUNK):
        part = np.asarray(queries[start : start + CHUNK], np.float32)
        distances = (part**2).sum(1)[:, None] + squares - 2 * part @ references.T
        out.append(np.partition(distances, k - 1, axis=1)[:, k - 1])
    return np.sqrt(np.maximum(np.concatenate(out), 0))


def covered(queries: np.ndarray, references: np.ndarray, k: int = 3) -> np.ndarray:
    """Which queries lie in the estimated manifold of the references: bool `[N]`.

    The manifold is the union of the balls around each reference that reach its `k`-th nearest
    other one (Eq. 2, Kynkaanniemi et al. 2019). Precision is the mean over samples with real
    references, recall that over real images with samples as references.
    """
    references = np.asarray(references, np.float32)
    radii = nearest_distances(references, references, k + 1) ** 2
    squares = (references**2).sum(1)
    out = []
    for start in range(0, len(queries), CHUNK):
        part = np.asarray(queries[start : start + CHUNK], np.float32)
        distances = (part**2).sum(1)[:, None] + squares - 2 * part @ references.T
        out.append((distances <= radii).any(1))
    return np.concatenate(out)
