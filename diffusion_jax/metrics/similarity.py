"""Similarity of two sets of images, pair by pair."""

import numpy as np


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine between pairs of images `[N, ...]`, each minus its mean: `[N]`.

    For samples of two networks from the same noise it shows whether they have learned the same
    distribution; for samples and their nearest training images, whether these were copied
    (Kadkhodaie et al. 2024). It is 0 for images without contrast.
    """
    flat = [np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b)]
    u, v = (x - x.mean(1, keepdims=True) for x in flat)
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    products: np.ndarray = (u * v).sum(1)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
