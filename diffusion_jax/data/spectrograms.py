"""Pictures of sounds, their power by time and pitch: for people, and for networks."""

import functools
from typing import Any

import numpy as np

from diffusion_jax.data.kind import View

COLUMNS = 128  # frames of a picture, whatever the length of the sound
BANDS = 64  # equally wide in mel, from 0 Hz to half the rate
BATCH = 64  # sounds whose views are computed at a time
WINDOW = 0.032  # seconds of a frame, at least
FLOOR, TOP = -90.0, -20.0  # dB: the power of a band that is black, or as bright as can be
STEP, FRAMES = 0.01, 64  # of a view: seconds between frames, at least, and their largest number
# Bels of a view: a sine of amplitude 1 has about -2.9; 85 dB less, which nobody hears, counts as
# silence. (bels - MIDDLE) / SCALE is what networks get, in about [-1, 1].
SILENCE, MIDDLE, SCALE = -11.4, -7.0, 4.0


def window_size(rate: int, hop: float) -> int:
    """Samples of a frame: the least power of two of `WINDOW` and two hops, in samples, or more."""
    return 2 ** int(np.ceil(np.log2(max(2 * hop, WINDOW * rate))))


def spectrograms(x: np.ndarray, rate: int) -> np.ndarray:
    """Sounds float `[N, T, C]` in [-1, 1] as images uint8 `[N, BANDS, COLUMNS, 3]`.

    Time goes to the right and pitch upwards. The powers of a frame's bands sum to its mean square
    under the window (Hann), the mean over channels. Colours are of an absolute scale, so that
    pictures can be compared.
    """
    length = x.shape[1]
    hop = length / COLUMNS
    size = window_size(rate, hop)
    window = np.hanning(size + 1)[:-1]
    starts = np.rint((np.arange(COLUMNS) + 0.5) * hop).astype(int)  # in the padded sound
    places = starts[:, None] + np.arange(size)
    bands, colours = _bands(size, rate), _colours()
    images = np.empty((len(x), BANDS, COLUMNS, 3), np.uint8)
    for image, sound in zip(images, x, strict=True):
        padded = np.pad(sound, ((size // 2, size), (0, 0)))
        power = np.abs(np.fft.rfft(padded[places] * window[:, None], axis=1)) ** 2
        power[:, 1 : (size + 1) // 2] *= 2  # the other half of the spectrum
        each = power.mean(-1) @ bands / (size * np.sum(window**2))
        level = 10 * np.log10(np.maximum(each, 1e-12))
        shade = np.rint(255 * np.clip((level - FLOOR) / (TOP - FLOOR), 0, 1)).astype(int)
        image[:] = colours[shade.T[::-1]]
    return images


@functools.lru_cache(maxsize=4)
def log_mel_view(shape: tuple[int, ...], rate: int) -> View:
    """Log-mel spectra of sounds `[T, C]`, with frames from the top and bands to the right.

    In bels of mel power over the square of the window's length, brought to about [-1, 1]. There are
    at most `FRAMES` + 1 frames, whatever the length of the sounds.
    """
    import jax  # which data are read without

    from diffusion_jax.metrics.spectra import log_mel

    length, channels = shape
    hop = max(round(STEP * rate), -(-length // FRAMES))
    size = window_size(rate, hop)

    def of_one(x: Any) -> Any:
        bels = log_mel(x, rate, BANDS, size, hop, floor=size**2 * 10**SILENCE)
        return (bels - 2 * np.log10(size) - MIDDLE) / SCALE

    # Spectra take more memory than sounds.
    of = jax.jit(lambda x: jax.lax.map(of_one, x, batch_size=BATCH))
    words = (
        f"log-mel spectra of {length:,} samples at {rate:,} Hz, {BANDS} bands, windows of {size}, "
        f"hop {hop}, float32"
    )
    return View((1 + length // hop, BANDS, channels), of, words)


@functools.lru_cache(maxsize=4)
def _bands(size: int, rate: int) -> np.ndarray:
    """Share of each bin of a spectrum that each band has, `[size // 2 + 1, BANDS]`.

    Bands are stretches of the axis, and bins reach half a bin to both sides: no band is empty,
    however narrow it is.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)  # mel (O'Shaughnessy 1987)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 1) / 2595) - 1) * size / rate  # in bins
    edges[0], edges[-1] = -0.5, size // 2 + 0.5
    bins = np.arange(size // 2 + 1)[:, None]
    return np.clip(
        np.minimum(bins + 0.5, edges[1:]) - np.maximum(bins - 0.5, edges[:-1]), 0.0, None
    )


@functools.lru_cache(maxsize=1)
def _colours() -> np.ndarray:
    """Colours uint8 `[256, 3]` from black to bright."""
    from matplotlib import colormaps

    return np.rint(255 * colormaps["magma"](np.arange(256))[:, :3]).astype(np.uint8)
