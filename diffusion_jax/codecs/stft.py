"""The compressed complex short-time Fourier transform of sound as the space of diffusion (SGMSE).

It has about four times as many entries as the sound has samples, so that most pictures are the
transform of no sound: samples are judged after decoding.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from diffusion_jax.codecs.frames import Frames
from diffusion_jax.metrics.spectra import istft, stft
from diffusion_jax.system.arguments import check
from diffusion_jax.types import Array, Params

ALLOWED = {
    **{"size": "[4, inf)", "hop": "[1, inf)", "multiple": "[1, inf)"},
    **{"power": "(0, 1]", "scale": "(0, inf)"},
}
FAINT = 1e-6  # below this absolute value compression is linear, so that its derivative is finite


@dataclasses.dataclass(frozen=True)
class STFT(Frames):
    """`x_0 = scale |X|^power e^(i phi)`, a picture with real and imaginary parts: a `Codec`.

    `X = |X| e^(i phi)` is the centred transform with a periodic Hann window (Richter et al. 2023,
    section IV-B; Welker et al. 2022). The defaults are those of SGMSE at 16 kHz; at 48 kHz size
    1534, hop 384, scale 0.065 and power 0.667.

    Noise of variance `s^2` in the complex numbers of SGMSE has variance `s^2 / 2` in each part.

    Raises:
        ValueError: a value is out of range, `size` odd, or frames would not overlap by half.
    """

    length: int  # samples T of an item
    channels: int  # C of an item
    size: int = 510  # samples of the window, even; `size / 2 + 1` bins
    hop: int = 128  # samples between frames
    power: float = 0.5  # of absolute values
    scale: float = 0.15
    multiple: int = 64  # the number of frames is a multiple of this, for networks that halve it
    limit: None = None
    levels: int = 0
    second_moment: None = None
    log_scale: float = 0.0  # there are more entries than samples of sound: figures are of these

    def __post_init__(self) -> None:
        check(ALLOWED, **vars(self))
        self.check_frames()

    @property
    def words(self) -> str:
        """Frames, bins and compression."""
        return (
            f"{self.frames} frames of an STFT of {self.shape[1]} bins, to the power {self.power:g}"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, bins, and two parts of each channel."""
        return self.frames, 1 + self.size // 2, 2 * self.channels

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """Pictures `[B, frames, bins, 2 C]` of sound `[B, T, C]`: real parts, then imaginary."""
        spectra = stft(x, self.size, self.hop)
        parts = jnp.stack([spectra.real, spectra.imag], axis=-2)
        parts = self.scale * _to_the(parts, self.power, FAINT)
        parts = parts.reshape(*parts.shape[:3], -1)
        return jnp.pad(parts, ((0, 0), (0, self.frames - self.filled), (0, 0), (0, 0)))

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Sound `[B, T, C]` of pictures `[B, frames, bins, 2 C]`.

        The sound whose transform, not compressed, is nearest (Griffin & Lim 1984, Eq. 6).
        """
        parts = x_0[:, : self.filled].reshape(*x_0.shape[:1], self.filled, self.shape[1], 2, -1)
        parts = _to_the(parts / self.scale, 1 / self.power, FAINT**self.power)
        spectra = jax.lax.complex(parts[..., 0, :], parts[..., 1, :])
        return istft(spectra, self.size, self.hop, self.length)


def _to_the(parts: Array, power: float, faint: float) -> Array:
    """Complex numbers `[..., 2, C]`, real and imaginary parts, with `|X|^power` for `|X|`.

    Linear where `|X| < faint`: the derivative of `|X|^power` at 0 is infinite, and that of `|X|` is
    not defined. The inverse has the power `1 / power` and the `faint` value `faint^power`.
    """
    square = jnp.sum(parts**2, axis=-2, keepdims=True)
    return parts * jnp.maximum(square, faint**2) ** ((power - 1) / 2)
