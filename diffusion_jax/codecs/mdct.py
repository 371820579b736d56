"""The modified discrete cosine transform (MDCT) of sound as the space of diffusion.

It is real, orthonormal and critically sampled: white noise stays white, the likelihood of a sound
is that of its coefficients, and the inverse is exact, without a phase to be guessed.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.system.arguments import check
from diffusion_jax.types import Array, Params

WINDOWS = ("sine", "kbd")
ALLOWED = {"bins": "[2, inf)", "multiple": "[1, inf)", "window": WINDOWS, "scale": "(0, inf)"}
KBD_ALPHA = 4.0  # of the Kaiser-Bessel window, as in AAC (ISO/IEC 14496-3)


@dataclasses.dataclass(frozen=True)
class MDCT:
    """`x_0 = scale MDCT(x) / rms`, a sequence of frames with a channel for each bin: a `Codec`.

    Frame by frame, since bins of different frequency are as different as channels: a network has
    weights of its own for each, and a DiT one token for `bins` samples.

    Time-domain aliasing cancellation (Princen & Bradley 1986) in steps that are each orthonormal:
    blocks of `bins` samples, a rotation of each pair of samples that mirror each other about a
    border between blocks by the values of the window there, and a DCT-IV of each block. There is no
    rotation about the two ends, where the window is 1 up to the edge. So the transform is
    orthonormal for lengths that are a multiple of `bins * multiple`; others are padded by zeros at
    the end, and then it keeps norms, with fewer than that many coefficients more than samples.

    Natural sound has a hundredth of the amplitude at high frequencies, which white noise would hide
    at most times: `rms` brings all bins to about one variance. It is a diagonal matrix after an
    orthonormal one, whose determinant `log_scale` has.

    Raises:
        ValueError: a value is out of range, or `bins` odd.
    """

    length: int  # samples T of an item
    channels: int  # C of an item
    bins: int = 256  # samples between frames, and coefficients of a frame
    window: str = "sine"  # or "kbd", Kaiser-Bessel derived: far bins leak less, near ones more
    multiple: int = 1  # the number of frames is a multiple of this, for networks that halve it
    scale: float = 1.0  # so that `x_0` has about variance 1
    # root mean square of the data's coefficients by octave, as `by_octave` finds it; () is 1
    rms: tuple[float, ...] = ()
    limit: None = None
    levels: int = 0
    second_moment: None = None

    def __post_init__(self) -> None:
        check(ALLOWED, **vars(self))
        if self.bins % 2:
            raise ValueError(f"bins={self.bins} must be even")
        if not all(np.isfinite(value) and value > 0 for value in self.rms):
            raise ValueError(f"rms={self.rms} must be positive numbers, one for each octave")

    @property
    def words(self) -> str:
        """Frames, bins and window."""
        return f"{self.frames} frames of an MDCT of {self.bins} bins, {self.window} window"

    @property
    def log_scale(self) -> float:
        """Mean of `ln |d x_0 / d x|` over the coefficients."""
        return float(np.log(self._gains).mean())

    @property
    def _gains(self) -> np.ndarray:
        """Factor of each bin, `[bins]`: between octaves the logarithm of `rms` is linear in it."""
        if not self.rms:
            return np.full(self.bins, self.scale)
        octave = np.log2((np.arange(self.bins) + 0.5) / self.bins)
        middles = np.arange(len(self.rms)) - len(self.rms) + 0.5
        found: np.ndarray = self.scale / np.exp(np.interp(octave, middles, np.log(self.rms)))
        return found

    def resized(self, shape: tuple[int, ...]) -> "MDCT":
        """The same for sound of another shape `[T, C]`."""
        return dataclasses.replace(self, length=shape[0], channels=shape[1])

    @property
    def gains(self) -> np.ndarray:
        """Factor of each entry of a frame, `[bins * C]`: `x_0` over the orthonormal transform."""
        return np.repeat(self._gains, self.channels)

    @property
    def filled(self) -> "MDCT":
        """The same for sounds that fill all frames."""
        return dataclasses.replace(self, length=self.frames * self.bins)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return -(-self.length // (self.bins * self.multiple)) * self.multiple

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, and bins of all channels."""
        return self.frames, self.bins * self.channels

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """Coefficients `[B, frames, bins * C]` of sound `[B, T, C]`, of the lowest bin first."""
        beyond = self.frames * self.bins - self.length
        padded = jnp.pad(x, ((0, 0), (0, beyond), (0, 0)))
        blocks = padded.reshape(-1, self.frames, self.bins, self.channels)
        blocks = self._dct(self._rotated(blocks, 1.0))
        blocks = blocks * jnp.asarray(self._gains[:, None], blocks.dtype)
        return blocks.reshape(-1, *self.shape)

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Sound `[B, T, C]` of coefficients `[B, frames, bins * C]`."""
        blocks = x_0.reshape(-1, self.frames, self.bins, self.channels)
        blocks = blocks / jnp.asarray(self._gains[:, None], blocks.dtype)
        blocks = self._rotated(self._dct(blocks), -1.0)
        return blocks.reshape(-1, self.frames * self.bins, self.channels)[:, : self.length]

    def _dct(self, blocks: Array) -> Array:
        """The DCT-IV of each block `[B, frames, bins, C]`, which is its own inverse.

        `sqrt(2 / N) sum_n x_n cos(pi / N (n + 1/2) (k + 1/2))`, by an FFT of N / 2 complex numbers.
        """
        angle = np.pi * (np.arange(self.bins // 2) + 0.125) / self.bins
        twist = jax.lax.complex(
            *(jnp.asarray(part[:, None], blocks.dtype) for part in (np.cos(angle), -np.sin(angle)))
        )
        even, odd = blocks[:, :, ::2], blocks[:, :, ::-1][:, :, ::2]
        found = jnp.fft.fft(jax.lax.complex(even, odd) * twist, axis=2) * twist
        pairs = jnp.stack([found.real, -found.imag[:, :, ::-1]], axis=3)
        return (2 / self.bins) ** 0.5 * pairs.reshape(blocks.shape)

    def _rotated(self, blocks: Array, sign: float) -> Array:
        """Rotates mirrored samples about the borders between blocks, or back for `sign` -1."""
        half = self.bins // 2
        rising, falling = (
            jnp.asarray(part[:, None], blocks.dtype) for part in self._about_a_border()
        )
        falling = sign * falling
        before, after = blocks[:, :-1, half:][:, :, ::-1], blocks[:, 1:, :half]
        left, right = rising * before - falling * after, rising * after + falling * before
        firsts = jnp.concatenate([blocks[:, :1, :half], right], axis=1)
        lasts = jnp.concatenate([left[:, :, ::-1], blocks[:, -1:, half:]], axis=1)
        return jnp.concatenate([firsts, lasts], axis=2)

    def _about_a_border(self) -> tuple[np.ndarray, np.ndarray]:
        """The rising window after and before the middle of its rise, outwards, `[bins / 2]` each.

        Their squares add up to 1.
        """
        if self.window == "sine":
            rise = np.sin(np.pi / 2 * (np.arange(self.bins) + 0.5) / self.bins)
        else:
            total = np.cumsum(np.kaiser(self.bins + 1, np.pi * KBD_ALPHA))
            rise = np.sqrt(total[:-1] / total[-1])
        half = self.bins // 2
        return rise[half:], rise[:half][::-1]


def by_octave(x_0: np.ndarray, channels: int = 1, octaves: int = 7) -> tuple[float, ...]:
    """Root mean square of coefficients `[..., bins * C]` in octaves, from low to high.

    The lowest one has all that is below it, too. It does not depend on the number of bins.
    """
    power = np.square(x_0, dtype=np.float64).reshape(-1, x_0.shape[-1] // channels, channels)
    bins = power.shape[1]
    which = np.ceil(np.log2((np.arange(bins) + 0.5) / bins)) + octaves - 1
    power = power.mean((0, 2))
    which = np.maximum(which, 0)
    return tuple(float(power[which == i].mean() ** 0.5) for i in range(octaves))
