"""Inception score: confidence of a classifier in samples, and diversity of their classes."""

import numpy as np


def inception_score(log_p: np.ndarray) -> float:
    """`exp(mean KL(p(y|x) || p(y)))` of log probabilities `[N, K]` (Salimans et al. 2016).

    Of all samples at once; published figures are often the mean over ten tenths of them. With `N`
    samples it is too small by about `c / N`.
    """
    return float(np.exp(_divergences(log_p).mean()))


def inception_influence(log_p: np.ndarray) -> np.ndarray:
    """Influence function `[N]` of the score: the effect of each sample, up to a constant."""
    divergences = _divergences(log_p)
    return np.exp(divergences.mean()) * divergences


def _divergences(log_p: np.ndarray) -> np.ndarray:
    """`KL(p(y|x) || p(y))` of every sample `[N]`."""
    p = np.exp(log_p)
    marginal = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    return (p * (log_p - marginal)).sum(1)
