"""How well scores of pixels find a mask: average precision, and overlap at a threshold.

All are of `counts`, which add up: over pictures, and over resamples of pictures.
"""

import numpy as np

BINS = 256  # of scores in [0, 1]; thresholds are multiples of 1 / BINS


def counts(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Numbers of pixels outside and inside of the mask with each score: int `[N, 2, BINS]`.

    From scores in [0, 1] and masks of 0 and 1, `[N, ...]`, picture by picture.
    """
    num = len(scores)
    place = np.minimum((scores.reshape(num, -1) * BINS).astype(int), BINS - 1)
    place += BINS * (mask.reshape(num, -1) > 0)
    rows = [np.bincount(row, minlength=2 * BINS) for row in place]
    return np.stack(rows).reshape(num, 2, BINS)


def average_precision(counts: np.ndarray) -> float:
    """`sum_n (R_n - R_(n-1)) P_n` over falling thresholds, with precision P and recall R.

    The area under the curve of both, of `counts` `[N, 2, BINS]` of all pictures together; a random
    score has the share of the mask. NaN without a pixel in the mask.
    """
    outside, inside = counts.sum(0)[:, ::-1]
    found = np.cumsum(inside)
    precision = found / np.maximum(found + np.cumsum(outside), 1)
    return float(np.sum(inside * precision) / found[-1]) if found[-1] else float("nan")


def iou(counts: np.ndarray, threshold: float = 0.5) -> float:
    """Intersection over union (Jaccard) of the mask with the pixels of a score >= `threshold`.

    Of `counts` `[N, 2, BINS]` of all pictures together. NaN if there is neither.
    """
    outside, inside = counts.sum(0)
    first = round(threshold * BINS)
    union = inside.sum() + outside[first:].sum()
    return float(inside[first:].sum() / union) if union else float("nan")
