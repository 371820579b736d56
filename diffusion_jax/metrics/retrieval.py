"""How well pictures fit their texts, in a space of both."""

import numpy as np

from diffusion_jax.metrics.intervals import Estimate, normal, variance_of_mean, wilson

TOP = (1, 5)


def ranks(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """How many other texts are at least as near to a picture as its own: int `[N]`.

    Of unit vectors, both `[N, E]`; text i is that of picture i.
    """
    products = images @ texts.T
    found: np.ndarray = np.sum(products >= np.diag(products)[:, None], axis=1) - 1
    return found


def text_estimates(images: np.ndarray, texts: np.ndarray) -> dict[str, Estimate]:
    """Retrieval of the text by its picture, among N texts, and the mean product of both.

    Of unit vectors `[N, E]`; text i is that of picture i. `top1` and `top5` are shares of pictures
    whose text is among so many nearest ones (by chance 1 / N and 5 / N), and `clip_score` is the
    mean cosine (CLIPScore without its factor of 2.5 and its cut at 0, Hessel et al. 2021).
    Intervals are over pictures.
    """
    num, rank = len(images), ranks(images, texts)
    found = {f"top{k}": wilson(float(np.mean(rank < k)), num) for k in TOP}
    cosines = np.sum(images * texts, axis=1)
    found["clip_score"] = normal(float(cosines.mean()), variance_of_mean(cosines))
    return found
