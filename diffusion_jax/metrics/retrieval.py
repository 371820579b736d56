"""How well pictures fit their texts, in a space of both."""

import numpy as np

from diffusion_jax.metrics.intervals import Estimate, mean, wilson

TOP = (1, 5)
LEAST = {**{f"top{k}": k + 1 for k in TOP}, "clip_score": 2}
"""From how many names each is defined: of no more than `k` names every one is found."""


def ranks(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """How many other texts are at least as near to a picture as its own: int `[N]`.

    Of unit vectors, both `[N, E]`; text i is that of picture i.
    """
    products = images @ texts.T
    found: np.ndarray = np.sum(products >= np.diag(products)[:, None], axis=1) - 1
    return found


def text_estimates(images: np.ndarray, texts: np.ndarray) -> dict[str, Estimate | None]:
    """Retrieval of the text by its picture, among N texts, and the mean product of both.

    Of unit vectors `[N, E]`; text i is that of picture i. `top1` and `top5` are shares of pictures
    whose text is among so many nearest ones (by chance 1 / N and 5 / N), and `clip_score` is the
    mean cosine (CLIPScore without its factor of 2.5 and its cut at 0, Hessel et al. 2021).
    Intervals are over pictures; None is of fewer names than `LEAST` says.
    """
    num, rank = len(images), ranks(images, texts)
    found = {f"top{k}": wilson(float(np.mean(rank < k)), num) for k in TOP}
    found["clip_score"] = mean(np.sum(images * texts, axis=1))
    return {name: value if num >= LEAST[name] else None for name, value in found.items()}
