"""Stationary normal sound on a circle, for which every filter is exact: Wiener's.

The covariance is circulant, so that the discrete Fourier transform `X = fft(x) / sqrt(T)` has
independent coefficients of variance `psd` [T], and with `x_t = alpha_t x_0 + sigma_t eps`

    E[x_0 | x_t] = F^-1 alpha S / (alpha^2 S + sigma^2) F x_t

Given also `y = x_0 + n` with noise of a spectrum N, `x_0` is normal about `S / (S + N) y` with the
spectrum `S N / (S + N)` (Wiener 1949). Sounds are `[B, T, 1]`. The code does not use the package's
mathematics: of a schedule, it calls `alpha` and `sigma` only.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from diffusion_jax.types import Array, Cond, Denoised, Denoiser


def filtered(gain: Array, x: Array) -> Array:
    """`x` `[B, T, 1]` with its spectrum times `gain` `[T]` or `[B, T]`."""
    spectrum = jnp.fft.fft(x[..., 0], axis=-1) * gain
    return jnp.real(jnp.fft.ifft(spectrum, axis=-1))[..., None].astype(x.dtype)


def coloured(length: int, variance: float = 0.25) -> np.ndarray:
    """The spectrum of falling noise with a resonance, `[T]`, of this mean."""
    f = np.minimum(np.arange(length), length - np.arange(length)) / length
    psd = 1 / (1 + (f / 0.05) ** 2) + 0.6 * np.exp(-(((f - 0.25) / 0.03) ** 2)) + 0.003
    return variance * psd / psd.mean()


@dataclasses.dataclass(frozen=True)
class Stationary:
    """Sound with the power spectrum `psd`, float64 `[T]`, symmetric, and mean 0."""

    psd: np.ndarray

    @property
    def cov(self) -> np.ndarray:
        """The covariance `[T, T]`."""
        lags = np.real(np.fft.ifft(self.psd))
        t = np.arange(len(lags))
        return np.asarray(lags[np.subtract.outer(t, t) % len(lags)])

    def sample(self, white: Array) -> Array:
        """Sound of white noise `[B, T, 1]`."""
        return filtered(jnp.asarray(np.sqrt(self.psd)), white)

    def wiener(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gain and spectrum of the posterior given `y` with noise of a spectrum, `[T]` each."""
        whole = self.psd + noise
        return self.psd / whole, self.psd * noise / whole

    def denoiser(self, schedule) -> Denoiser:
        """The exact denoiser without an observation."""
        return lambda x_t, t, cond: Denoised(_denoised(self.psd, schedule, x_t, t))

    def given(self, noise: np.ndarray, schedule) -> Denoiser:
        """The exact denoiser given `cond["image"]`, `y` with noise of a spectrum `[T]`."""
        gain, left = self.wiener(noise)

        def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
            mean = filtered(jnp.asarray(gain), cond["image"])
            about = x_t - schedule.alpha(t)[:, None, None] * mean
            return Denoised(mean + _denoised(left, schedule, about, t))

        return denoise

    def log_density(self, x: Array) -> Array:
        """`log p(x)` `[B]`."""
        power = jnp.abs(jnp.fft.fft(x[..., 0], axis=-1)) ** 2 / len(self.psd)
        terms = power / self.psd + jnp.log(2 * jnp.pi * self.psd)
        return -0.5 * jnp.sum(terms, axis=-1)

    def posterior(
        self, known: np.ndarray, y: np.ndarray, sigma: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean `[T]`, covariance `[T, T]` given `y = x + sigma eps` where `known`, `[T]` each."""
        rows = np.eye(len(known))[np.asarray(known, bool)]
        across = self.cov @ rows.T
        gain = across @ np.linalg.inv(rows @ across + sigma**2 * np.eye(len(rows)))
        return gain @ (rows @ y), self.cov - gain @ across.T


def _denoised(psd: np.ndarray, schedule, x_t: Array, t: Array) -> Array:
    alpha, sigma = (a[:, None] for a in (schedule.alpha(t), schedule.sigma(t)))
    psd = jnp.asarray(psd)
    return filtered(alpha * psd / (alpha**2 * psd + sigma**2), x_t)


def in_bands(x: np.ndarray, num: int = 4) -> np.ndarray:
    """Energy of sounds `[..., T]` in equal bands, `[..., num]`."""
    power = np.abs(np.fft.rfft(x, axis=-1)) ** 2 / x.shape[-1]
    power[..., 1:-1] *= 2  # negative frequencies, for an even number of samples
    parts = np.array_split(power, num, axis=-1)
    return np.stack([part.sum(-1) for part in parts], -1)


def bands_of(cov: np.ndarray, num: int = 4) -> np.ndarray:
    """The expected energy in bands of a sound with a covariance `[T, T]`, `[num]`."""
    values, vectors = np.linalg.eigh(cov)
    return values @ in_bands(vectors.T, num)
