"""Metrics of nearest neighbours: precision and recall, density and coverage, memorisation."""

from collections.abc import Iterator

import numpy as np

from diffusion_jax.metrics.intervals import Estimate, share

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


def two_nearest(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest two references, ascending, `[N, 2]`, and their numbers `[N, 2]`."""
    distances, numbers = [], []
    for squares in _square_distances(queries, references):
        two = np.argpartition(squares, 1, axis=1)[:, :2]
        found = np.take_along_axis(squares, two, 1)
        order = np.argsort(found, 1)
        numbers.append(np.take_along_axis(two, order, 1))
        distances.append(np.take_along_axis(found, order, 1))
    return np.sqrt(np.maximum(np.concatenate(distances), 0)), np.concatenate(numbers)


def radii(references: np.ndarray, k: int) -> np.ndarray:
    """Distance of each reference to its `k`-th nearest other one, `[M]`."""
    return nearest_distances(references, references, k + 1)


def covered(
    queries: np.ndarray, references: np.ndarray, k: int = 3, reach: np.ndarray | None = None
) -> np.ndarray:
    """Which queries lie in the estimated manifold of the references: bool `[N]`.

    The manifold is the union of the balls around each reference that reach its `k`-th nearest
    other one (Eq. 2, Kynkaanniemi et al. 2019). Precision is the mean over samples with real
    references, recall that over real images with samples as references. `reach` are the
    references' `radii`, if they are known.
    """
    limits = (radii(references, k) if reach is None else reach) ** 2
    within = [(d <= limits).any(1) for d in _square_distances(queries, references)]
    return np.concatenate(within)


def densities(
    queries: np.ndarray, references: np.ndarray, k: int = 5, reach: np.ndarray | None = None
) -> np.ndarray:
    """In how many of the references' balls each query lies, over `k`: `[N]`.

    Density is the mean over samples with real references (Eq. 3, Naeem et al. 2020): 1 for samples
    of the references' own law, and not bounded by it.
    """
    limits = (radii(references, k) if reach is None else reach) ** 2
    inside = [(d <= limits).sum(1) for d in _square_distances(queries, references)]
    return np.concatenate(inside) / k


def reached(
    queries: np.ndarray, references: np.ndarray, k: int = 5, reach: np.ndarray | None = None
) -> np.ndarray:
    """Which references have a query in their ball: bool `[M]`.

    Coverage is the mean over real images (Eq. 4, Naeem et al. 2020). For as many samples of the
    same law it is about `1 - 2^-k`.
    """
    limits = radii(references, k) if reach is None else reach
    return nearest_distances(references, queries) <= limits


def memorised(
    distances: np.ndarray,
    heldout: np.ndarray,
    quantile: float = 0.05,
    repeats: int = 200,
    seed: int = 0,
) -> Estimate:
    """Share of samples nearer to a training image than `quantile` of held-out images are.

    A model that memorises nothing has `quantile`. The interval is of the probability that a sample
    is nearer than that quantile of the law of held-out images, with these training images given.
    Its variance is that of independent trials and, from resamplings of the held-out images, of the
    limit that is estimated from them.

    Args:
        distances: of samples to their nearest training image, `[N]`.
        heldout: of held-out images to theirs, `[H]`.
        quantile: that sets the limit.
        repeats: resamplings.
        seed: of the resamplings.
    """
    rng = np.random.default_rng(seed)
    ordered = np.sort(distances)

    def below(limits: np.ndarray) -> np.ndarray:
        return np.searchsorted(ordered, limits) / len(ordered)

    value = float(below(np.quantile(heldout, quantile)))
    again = rng.choice(heldout, (repeats, len(heldout)))
    limits = np.quantile(again, quantile, axis=1)
    variance = value * (1 - value) / len(distances) + float(np.var(below(limits), ddof=1))
    return share(value, variance, len(distances))


def closest_pairs(
    distances: np.ndarray, numbers: np.ndarray, count: int
) -> list[tuple[int, int, float]]:
    """`(sample, training image, distance)` of the `count` samples nearest to a training image.

    Args:
        distances: of each sample to its nearest training image `[N]`.
        numbers: of those training images `[N]`.
        count: pairs, nearest first.
    """
    order = np.argsort(distances, kind="stable")[:count]
    return [(int(i), int(numbers[i]), float(distances[i])) for i in order]


def _square_distances(queries: np.ndarray, references: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances `[CHUNK, M]` of one chunk of queries after the other."""
    references = np.asarray(references, np.float32)
    squares = (references**2).sum(1)
    for start in range(0, len(queries), CHUNK):
        part = np.asarray(queries[start : start + CHUNK], np.float32)
        yield (part**2).sum(1)[:, None] + squares - 2 * part @ references.T
