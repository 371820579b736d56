"""Nearest-neighbour metrics: precision and recall, density and coverage, memorisation."""

from collections.abc import Iterator

import numpy as np

from diffusion_jax.metrics.intervals import Estimate, share

CHUNK = 512


def nearest_distances(queries: np.ndarray, references: np.ndarray, k: int = 1) -> np.ndarray:
    """Euclidean distance from each query `[N, D]` to its `k`-th nearest reference `[M, D]`: `[N]`.

    A query that is itself a reference is its own nearest.
    """
    nearest = [
        np.partition(squares, k - 1, axis=1)[:, k - 1]
        for squares in _square_distances(queries, references)
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0))


def two_nearest(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the two nearest references, ascending, `[N, 2]`, and their numbers `[N, 2]`.

    With a single reference the second distance is infinite.
    """
    distances, numbers = [], []
    for squares in _square_distances(queries, references):
        if squares.shape[1] == 1:
            squares = np.pad(squares, ((0, 0), (0, 1)), constant_values=np.inf)
        two = np.argpartition(squares, 1, axis=1)[:, :2]
        found = np.take_along_axis(squares, two, 1)
        order = np.argsort(found, 1)
        numbers.append(np.take_along_axis(two, order, 1))
        distances.append(np.take_along_axis(found, order, 1))
    return np.sqrt(np.maximum(np.concatenate(distances), 0)), np.concatenate(numbers)


def radii(references: np.ndarray, k: int) -> np.ndarray:
    """Distance of each reference to its `k`-th nearest other one, `[M]`."""
    return nearest_distances(references, references, k + 1)


def balls_around(queries: np.ndarray, references: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Number of balls around references `[M, D]`, of radii `reach` `[M]`, that contain a query.

    Returns `[N]`. With the references' `radii` the balls estimate their manifold. Precision is the
    share of samples inside any ball around real images, recall that of real images inside any ball
    around samples (Eq. 2, Kynkaanniemi et al. 2019). Density is the mean number of balls around
    real images that contain a sample, over `k` (Eq. 3, Naeem et al. 2020): 1 for samples of the
    same distribution, but it can be larger.
    """
    limits = reach**2
    inside = [(squares <= limits).sum(1) for squares in _square_distances(queries, references)]
    return np.concatenate(inside)


def reached(queries: np.ndarray, references: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Which references have a query within their radius `reach`: bool `[M]`.

    Coverage is the mean over real images (Eq. 4, Naeem et al. 2020). For equally many samples of
    the same distribution it is about `1 - 2^-k`.
    """
    return nearest_distances(references, queries) <= reach


def memorised(
    distances: np.ndarray, heldout: np.ndarray, quantile: float = 0.05, repeats: int = 200
) -> Estimate:
    """Share of samples closer to a training image than the `quantile` of held-out images.

    From the distances of samples `[N]` and of held-out images `[H]` to their nearest training
    image. Without memorisation it is `quantile`. The interval is for the probability that a sample
    is closer than that quantile of the held-out distribution, for fixed training images. Its
    variance is that of independent trials plus, by resampling held-out images, that of the
    estimated quantile.
    """
    rng = np.random.default_rng(0)
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
    """`(sample, training image, distance)` of the `count` closest samples, closest first.

    From each sample's distance to its nearest training image and that image's number, both `[N]`.
    """
    order = np.argsort(distances, kind="stable")[:count]
    return [(int(i), int(numbers[i]), float(distances[i])) for i in order]


def _square_distances(queries: np.ndarray, references: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances `[CHUNK, M]`, one chunk of queries at a time."""
    references = np.asarray(references, np.float32)
    squares = (references**2).sum(1)
    for start in range(0, len(queries), CHUNK):
        part = np.asarray(queries[start : start + CHUNK], np.float32)
        yield (part**2).sum(1)[:, None] + squares - 2 * part @ references.T
