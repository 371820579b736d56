"""Spectra of sound: the short-time Fourier transform, and log-mel spectra for judges and pictures.

Sound is `[..., T, C]` in [-1, 1]; all functions are pure, and run in a compiled program.
"""

import jax.numpy as jnp
import numpy as np

from diffusion_jax.types import Array


def hann(size: int) -> np.ndarray:
    """The periodic Hann window, float64 `[size]`: `sin^2(pi n / size)`."""
    return np.asarray(np.sin(np.pi * np.arange(size) / size) ** 2)


def stft(x: Array, size: int, hop: int) -> Array:
    """The centred short-time Fourier transform, complex `[..., 1 + T // hop, 1 + size // 2, C]`.

    Frame f is `x` `[..., T, C]` around the sample `f hop`, times the periodic Hann window of `size`
    samples, an even number. Beyond its ends `x` is mirrored, as by PyTorch and librosa before 0.10.
    """
    length = x.shape[-2]
    mirrored = np.pad(np.arange(length), size // 2, mode="reflect")
    places = mirrored[hop * np.arange(1 + length // hop)[:, None] + np.arange(size)]
    window = jnp.asarray(hann(size)[:, None], x.dtype)
    return jnp.fft.rfft(jnp.take(x, places, axis=-2) * window, axis=-2)


def istft(spectra: Array, size: int, hop: int, length: int) -> Array:
    """The sound `[..., T, C]` whose `stft` is nearest to `spectra` (Griffin & Lim 1984, Eq. 6).

    Args:
        spectra: complex `[..., 1 + T // hop, 1 + size // 2, C]`.
        size: samples of the window, even.
        hop: samples between frames, at most half of `size`.
        length: samples T of the sound.
    """
    window = hann(size)[:, None]
    frames = jnp.fft.irfft(spectra, size, axis=-2)
    frames = frames * jnp.asarray(window, frames.dtype)
    square = np.broadcast_to(window**2, (spectra.shape[-3], size, 1))
    weight = _added(jnp.asarray(square, frames.dtype), hop, length)
    return _added(frames, hop, length) / weight


def _added(frames: Array, hop: int, length: int) -> Array:
    """The sum `[..., T, C]` of frames `[..., F, size, C]`, each at its place."""
    *batch, count, size, channels = frames.shape
    num = -(-size // hop)
    none = [(0, 0)] * len(batch)
    beyond = (*none, (0, 0), (0, num * hop - size), (0, 0))
    parts = jnp.pad(frames, beyond).reshape(*batch, count, num, hop, channels)
    total = sum(
        jnp.pad(parts[..., i, :, :], (*none, (i, num - i), (0, 0), (0, 0))) for i in range(num)
    )
    whole = jnp.asarray(total).reshape(*batch, -1, channels)
    return whole[..., size // 2 :, :][..., :length, :]


def mel_of(hertz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear to 1000 Hz, then 27 mels a factor 6.4."""
    hertz = np.asarray(hertz, np.float64)
    above = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    return np.where(hertz < 1000, 3 * hertz / 200, above)


def hertz_of(mel: np.ndarray) -> np.ndarray:
    """The inverse of `mel_of`."""
    mel = np.asarray(mel, np.float64)
    above = 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27)
    return np.where(mel < 15, 200 * mel / 3, above)


def mel_filters(rate: int, size: int, bands: int, low: float, high: float) -> np.ndarray:
    """Triangles of Slaney's mel scale over the bins of an FFT, `[1 + size // 2, bands]`.

    Their corners are evenly spaced in mel from `low` to `high` Hz, and each has an area of 1 Hz.
    """
    corners = hertz_of(np.linspace(mel_of(np.array(low)), mel_of(np.array(high)), bands + 2))
    bins = (np.arange(1 + size // 2) * rate / size)[:, None]
    left, top, right = corners[:-2], corners[1:-1], corners[2:]
    rise, fall = (bins - left) / (top - left), (right - bins) / (right - top)
    return np.asarray(np.maximum(0, np.minimum(rise, fall)) * 2 / (right - left))


def log_mel(
    x: Array,
    rate: int,
    bands: int = 64,
    size: int = 512,
    hop: int = 160,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-10,
) -> Array:
    """Log-mel spectra `[..., 1 + T // hop, bands, C]` of sound `[..., T, C]`, in bels.

    `log10(max(mel power, floor))`, of a Hann window of `size` samples and the filters of
    `mel_filters` up to `high` Hz, by default half of `rate`.
    """
    power = jnp.abs(stft(x, size, hop)) ** 2
    filters = mel_filters(rate, size, bands, low, rate / 2 if high is None else high)
    mel = jnp.einsum("...fkc,km->...fmc", power, jnp.asarray(filters, x.dtype), precision="highest")
    return jnp.log10(jnp.maximum(mel, floor))
