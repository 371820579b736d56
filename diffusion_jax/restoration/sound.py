"""Operators on sound `[B, T, C]`: bands, sampling rates, rooms; and noise that is mixed in.

Gaps are `operators.Mask`, clipping is `nonlinear.Clipping`, and rooms are `linear.Blur`. Units are
samples: a frequency of 0.25 cycles per sample is 4 kHz at a rate of 16 kHz.
"""

import jax
import jax.numpy as jnp
from flax import struct

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.restoration.linear import Blur, cosine, inverse_cosine
from diffusion_jax.restoration.operators import Spectrum
from diffusion_jax.types import Array

QUIET = 1e-3
"""Least RMS to which a level of noise refers, 60 dB below full scale: silence has none."""
TINY = 1e-12


@struct.dataclass
class Band:
    """The frequencies from `low` to `high` alone, of the cosine transform: a missing band.

    Data are thus continued by their mirror image at the ends, and the edges of the band are sharp.
    """

    low: Array  # `[B]`, in cycles per sample, >= 0
    high: Array  # `[B]`, at most 1/2

    def __call__(self, x: Array) -> Array:
        values, analyse, synthesise, _ = self.spectrum(x)
        return synthesise(values * analyse(x))

    def spectrum(self, x: Array) -> Spectrum:
        length = _length(x)
        f = (jnp.arange(length, dtype=x.dtype) / (2 * length))[:, None]
        low, high = per_sample(self.low, x), per_sample(self.high, x)
        values = ((f >= low) & (f < high)).astype(x.dtype)
        return Spectrum(values, cosine, inverse_cosine, lambda y: values * cosine(y))


@struct.dataclass
class Decimate:
    """Every `factor`-th sample of the band that this many samples hold, without aliasing.

    The first `T / factor` coefficients of the cosine transform, as those of a shorter recording.
    """

    factor: int = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """`[B, T, C] -> [B, T / factor, C]`.

        Raises:
            ValueError: the factor does not divide the length.
        """
        kept = self._kept(x)
        return self.factor**-0.5 * inverse_cosine(cosine(x)[:, :kept])

    def spectrum(self, x: Array) -> Spectrum:
        kept, length = self._kept(x), x.shape[1]
        values = self.factor**-0.5 * (jnp.arange(length) < kept).astype(x.dtype)[None, :, None]

        def observed(y: Array) -> Array:
            return jnp.pad(cosine(y), [(0, 0), (0, length - kept), (0, 0)])

        return Spectrum(values, cosine, inverse_cosine, observed)

    def _kept(self, x: Array) -> int:
        length = _length(x)
        if length % self.factor:
            raise ValueError(f"factor={self.factor} must divide the length of the data, {length}")
        return length // self.factor


def _length(x: Array) -> int:
    if x.ndim != 3:
        raise ValueError(f"this operator is for sounds [B, T, C], and the data are {x.shape}")
    return x.shape[1]


def gap(start: Array, length: Array, size: int) -> Array:
    """What is known around a gap: `[B, size, 1]` for a `Mask`, 0 in the gap.

    `start` and `length` `[B]` are shares of the whole.
    """
    place = (jnp.arange(size) + 0.5) / size
    inside = (place >= start[:, None]) & (place < (start + length)[:, None])
    return jnp.where(inside, 0.0, 1.0)[..., None]


def room_response(keys: Array, decay: Array, direct: Array, size: int) -> Array:
    """Impulse responses `[B, size]`: the direct sound, then white noise that decays exponentially.

    A model of late reverberation alone, without early reflections (Polack 1988).

    Args:
        keys: `[B]`.
        decay: samples `[B]` until the noise is 60 dB down (T60).
        direct: energy of the direct sound over that of the rest, dB `[B]`.
        size: of the response.
    """
    noise = jax.vmap(lambda key: jax.random.normal(key, (size - 1,)))(keys)
    noise *= 10 ** (-3 * jnp.arange(1, size) / decay[:, None])
    noise /= jnp.linalg.norm(noise, axis=1, keepdims=True) + TINY
    return jnp.concatenate([jnp.ones((len(decay), 1)), 10 ** (-direct[:, None] / 20) * noise], 1)


def room(response: Array) -> Blur:
    """Reverberation by responses `[B, size]`, on recordings at least twice as long.

    Recordings are periodic: what sounds after the end is heard at the beginning.
    """
    return Blur(jnp.pad(response, [(0, 0), (response.shape[1], 0)]))


def coloured_noise(keys: Array, exponent: Array, shape: tuple[int, ...]) -> Array:
    """Gaussian noise `[B, T, C]` with a power of `1 / f^exponent` and an RMS of 1.

    Args:
        keys: `[B]`.
        exponent: `[B]`; 0 is white, 1 pink, 2 brown.
        shape: of one recording, `(T, C)`.
    """
    white = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    f = jnp.maximum(jnp.arange(shape[0] // 2 + 1), 1)[:, None]
    gain = f ** (-exponent[:, None, None] / 2)
    noise = jnp.fft.irfft(gain * jnp.fft.rfft(white, axis=1), shape[0], axis=1)
    return noise / jnp.maximum(rms(noise), TINY)


def rms(x: Array) -> Array:
    """Root mean square of each recording, `[B, 1, 1]`, over all of it."""
    return jnp.sqrt(jnp.mean(x**2, axis=(1, 2), keepdims=True))


def mixed(x: Array, noise: Array, snr: Array) -> Array:
    """`x + gain noise` with a signal-to-noise ratio of `snr` dB `[B]`, both `[B, T, C]`.

    Powers are means over all that is mixed. A recording below `QUIET` gets the noise of one of that
    level. The sum is not clipped and may leave [-1, 1].
    """
    level = jnp.maximum(rms(x), QUIET) * 10 ** (-per_sample(snr, x) / 20)
    return x + level * noise / jnp.maximum(rms(noise), TINY)
