"""Log-mel spectra of sound as the space of diffusion, as in most systems that speak or play.

They say how loud each pitch is at each time and nothing of phases, which a network would have to
find out, and nobody hears: those of a decoded sound are made to fit each other. So decoding does
not give a sound back, but one that has about its spectrum, and sounds like it.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.frames import Frames
from diffusion_jax.data.spectrograms import SILENCE
from diffusion_jax.metrics.spectra import istft, log_mel, mel_filters, stft
from diffusion_jax.system.arguments import check
from diffusion_jax.types import Array, Params

ALLOWED = {
    **dict.fromkeys(("hop", "bands", "multiple"), "[1, inf)"),
    **{"size": "[4, inf)", "scale": "(0, inf)", "mean": "(-inf, inf)", "iterations": "[0, inf)"},
}
UPDATES = 30  # of the powers that a mel spectrum is of
MOMENTUM = 0.99  # of phases
TINY = 1e-12  # least divisor


@dataclasses.dataclass(frozen=True)
class Mel(Frames):
    """`x_0 = scale (bels - mean)`, a sequence of frames with a channel for each band: a `Codec`.

    Bels are `log10` of the mel power over `size^2`, at least `SILENCE`. Decoding is a lossy
    inverse: `powers`, then `griffin_lim`. Derivatives of the phases are taken for 0.

    Raises:
        ValueError: a value is out of range, `size` odd, or frames would not overlap by half.
    """

    length: int  # samples T of an item
    channels: int  # C of an item
    rate: int  # samples per second, Hz
    size: int = 1024  # samples of the window, even
    hop: int = 256  # samples between frames
    bands: int = 128  # evenly spaced in Slaney's mel, up to half the rate
    multiple: int = 1  # the number of frames is a multiple of this, for networks that halve it
    mean: float = -10.0  # of the data's bels
    scale: float = 0.6  # so that `x_0` has about variance 1
    iterations: int = 32  # of phases
    limit: None = None
    levels: int = 0
    second_moment: None = None
    log_scale: float = 0.0  # there is no inverse: figures are of spectra

    def __post_init__(self) -> None:
        check(ALLOWED, **vars(self))
        self.check_frames()

    @property
    def words(self) -> str:
        """Frames and bands."""
        return f"{self.frames} frames of {self.bands} log-mel bands, whose phases are found again"

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, and bands of all channels."""
        return self.frames, self.bands * self.channels

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        """Spectra `[B, frames, bands * C]` of sound `[B, T, C]`, of the lowest band first."""
        floor = self.size**2 * 10**SILENCE
        bels = log_mel(x, self.rate, self.bands, self.size, self.hop, floor=floor)
        bels = bels - 2 * np.log10(self.size)
        beyond = ((0, 0), (0, self.frames - self.filled), (0, 0), (0, 0))
        bels = jnp.pad(bels, beyond, constant_values=SILENCE)
        return (self.scale * (bels - self.mean)).reshape(-1, *self.shape)

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        """Sound `[B, T, C]` whose spectra are about `x_0` `[B, frames, bands * C]`."""
        bels = x_0[:, : self.filled].reshape(-1, self.filled, self.bands, self.channels)
        above = 10 ** (bels / self.scale + self.mean) - 10**SILENCE
        mel = self.size**2 * jnp.maximum(above, 0)
        filters = mel_filters(self.rate, self.size, self.bands, 0.0, self.rate / 2)
        magnitude = jnp.sqrt(jnp.maximum(powers(mel, filters), TINY))
        framing = self.size, self.hop, self.length
        phases = griffin_lim(jax.lax.stop_gradient(magnitude), *framing, self.iterations)
        return istft(magnitude * phases, *framing)


def powers(mel: Array, filters: np.ndarray, updates: int = UPDATES) -> Array:
    """Powers `[..., bins, C]`, none negative, whose mel powers are about `mel` `[..., bands, C]`.

    By multiplicative updates of the least squares of `filters` `[bins, bands]`, from a weighted
    mean of the bands of each bin (Lee & Seung 2001, Eq. 4).
    """
    known = jnp.asarray(filters, mel.dtype)

    def spread(mel: Array) -> Array:
        return jnp.einsum("...mc,km->...kc", mel, known, precision="highest")

    aim = spread(mel)

    def update(_: int, power: Array) -> Array:
        own = jnp.einsum("...kc,km->...mc", power, known, precision="highest")
        return power * aim / (spread(own) + TINY)

    start = aim / (jnp.sum(known, 1)[:, None] + TINY)
    return jax.lax.fori_loop(0, updates, update, start)


def griffin_lim(magnitude: Array, size: int, hop: int, length: int, iterations: int) -> Array:
    """Phases `e^(i phi)` with which `magnitude` `[..., frames, bins, C]` is nearly a transform.

    The fast Griffin-Lim algorithm (Perraudin et al. 2013, algorithm 2), from phases of 0. Size,
    hop and length are those of `istft`.
    """

    def improve(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        phases, before = state
        found = stft(istft(magnitude * phases, size, hop, length), size, hop)
        ahead = found - MOMENTUM / (1 + MOMENTUM) * before
        return ahead / (jnp.abs(ahead) + TINY), found

    zeros = jnp.zeros(magnitude.shape, jnp.result_type(magnitude, jnp.complex64))
    return jax.lax.fori_loop(0, iterations, improve, (zeros + 1, zeros))[0]
