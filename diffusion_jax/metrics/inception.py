"""Inception score: how sure a classifier is of each sample, and how evenly it sees the classes."""

import numpy as np


def inception_score(log_p: np.ndarray) -> float:
    """`exp(mean KL(p(y|x) || p(y)))` of log probabilities `[N, K]` (Salimans et al. 2016).

    Of all samples at once; published figures are often the mean over ten tenths of them. Of `N`
    samples it is too small by about `c / N`.
    """
    return float(np.exp(_divergences(log_p).mean()))


def inception_influence(log_p: np.ndarray) -> np.ndarray:
    """How much each sample moves the score: its influence function `[N]`, up to a constant."""
    divergences = _divergences(log_p)
    return np.exp(divergences.mean()) * divergences


def _divergences(log_p: np.ndarray) -> np.ndarray:
    """`KL(p(y|x) || p(y))` of every sample `[N]`."""
    p = np.exp(log_p)
    marginal = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    return (p * (log_p - marginal)).sum(1)
