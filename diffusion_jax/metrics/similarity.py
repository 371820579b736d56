"""How alike two sets of images are, pair by pair."""

import numpy as np


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between images `[N, ...]` of the same place, each less its mean: `[N]`.

    With samples of two networks from the same noise it says whether they have learned the same law;
    with each sample's nearest training image, whether that was copied (Kadkhodaie et al. 2024). An
    image without contrast has 0.
    """
    flat = [np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b)]
    u, v = (x - x.mean(1, keepdims=True) for x in flat)
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    products: np.ndarray = (u * v).sum(1)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
