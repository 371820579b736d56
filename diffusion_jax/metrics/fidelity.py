"""Distance of arrays from their originals, pair by pair: PSNR and SSIM."""

import numpy as np

MOST = 100.0  # dB of equal arrays, so that means are finite; rounding to 8 bits has 59
RADIUS, SIGMA = 5, 1.5  # of SSIM's Gaussian window, 11 wide
K1, K2 = 0.01, 0.03


def psnr(a: np.ndarray, b: np.ndarray, data_range: float) -> np.ndarray:
    """Peak signal-to-noise ratio `10 log10(R^2 / mean (a - b)^2)` in dB, at most `MOST`.

    Of pairs of arrays `[B, ...]`, whose values span `R = data_range`: 2 on [-1, 1], 255 for bytes.
    Returns float64 `[B]`.
    """
    square = (np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2
    error = square.reshape(len(square), -1).mean(1)
    return 10 * np.log10(data_range**2 / np.maximum(error, data_range**2 * 10 ** (-MOST / 10)))


def ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> np.ndarray:
    """Structural similarity, 1 for equal arrays (Eq. 13, Wang et al. 2004), float64 `[B]`.

    Of pairs of arrays `[B, ..., C]` as for `psnr`, with moments under a Gaussian window (standard
    deviation 1.5, 11 wide) along all axes between the first and the last. The mean over channels,
    and over the places where the window is inside of the array. It depends on which value is 0:
    published figures are mostly of pixels with black at 0, not at -1.

    Raises:
        ValueError: an axis is shorter than the window.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(a.shape[1:-1]) < 2 * RADIUS + 1:
        raise ValueError(f"a: {a.shape} has an axis shorter than the window of {2 * RADIUS + 1}")
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a, var_b = _windowed(a * a) - mean_a**2, _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    c_1, c_2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c_1) / (mean_a**2 + mean_b**2 + c_1)
    structure = (2 * covariance + c_2) / (var_a + var_b + c_2)
    found: np.ndarray = (luminance * structure).reshape(len(a), -1).mean(1)
    return found


def _windowed(x: np.ndarray) -> np.ndarray:
    """Means of `[B, ..., C]` under the window, wherever it is inside."""
    weights = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
    for axis in range(1, x.ndim - 1):
        views = np.lib.stride_tricks.sliding_window_view(x, 2 * RADIUS + 1, axis)
        x = views @ (weights / weights.sum())
    return x
