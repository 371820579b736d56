"""Match of images and texts in a common embedding space."""

import numpy as np

from diffusion_jax.metrics.intervals import Estimate, mean, wilson

TOP = (1, 5)
LEAST = {**{f"top{k}": k + 1 for k in TOP}, "clip_score": 2}
"""Minimum number of names of each metric: among at most `k` names every one is in the top `k`."""


def ranks(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Number of other texts at least as close to an image as its own: int `[N]`.

    From unit vectors, both `[N, E]`; text i belongs to image i.
    """
    products = images @ texts.T
    found: np.ndarray = np.sum(products >= np.diag(products)[:, None], axis=1) - 1
    return found


def text_estimates(images: np.ndarray, texts: np.ndarray) -> dict[str, Estimate | None]:
    """Retrieval of an image's text among N texts, and the mean cosine of both.

    From unit vectors `[N, E]`; text i belongs to image i. `top1` and `top5` are shares of images
    whose text is among the 1 or 5 nearest (1 / N and 5 / N by chance), and `clip_score` is the mean
    cosine (CLIPScore without its factor of 2.5 and its cut at 0, Hessel et al. 2021). Intervals are
    over images; None for fewer names than `LEAST`.
    """
    num, rank = len(images), ranks(images, texts)
    found = {f"top{k}": wilson(float(np.mean(rank < k)), num) for k in TOP}
    found["clip_score"] = mean(np.sum(images * texts, axis=1))
    return {name: value if num >= LEAST[name] else None for name, value in found.items()}
