"""Features of sounds that need no network and no weights."""

import jax
import jax.numpy as jnp

from diffusion_jax.data import Kind
from diffusion_jax.data.spectrograms import SILENCE, STEP, window_size
from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.evaluation.sound_measures import Sounds
from diffusion_jax.metrics.spectra import log_mel
from diffusion_jax.types import Array

NAME = "mel_statistics"
BANDS = 20  # few, so that a covariance of features can be estimated from few sounds
BATCH_SIZE = 64  # sounds at a time: their spectra take more memory than they


def statistics(x: Array, rate: int) -> Array:
    """Features `[B, 3 BANDS C]` of sounds `[B, T, C]`: means, deviations and changes of each band.

    Over the frames of log-mel spectra, in bels: mean, standard deviation, and root mean square of
    the difference from one frame to the next (delta). They know timbre, loudness and how these
    move, and nothing of the order of what is heard. The level is that of `x`.

    Raises:
        ValueError: a sound has less than two frames.
    """
    hop, size = framing(rate)
    if x.shape[1] < hop:
        raise ValueError(f"sounds of {x.shape[1]} samples have one frame: {hop} are needed")
    bels = log_mel(x, rate, BANDS, size, hop, floor=size**2 * 10**SILENCE)
    delta = jnp.sqrt(jnp.mean(jnp.diff(bels, axis=1) ** 2, 1))
    each = jnp.stack([jnp.mean(bels, 1), jnp.std(bels, 1), delta], 1)
    return jnp.reshape(each, (len(x), -1))


def framing(rate: int) -> tuple[int, int]:
    """Hop and window in samples: 10 ms, and the least power of two of 32 ms or more."""
    hop = round(STEP * rate)
    return hop, window_size(rate, hop)


def mel_statistics(kind: Kind) -> Extractor:
    """`statistics` of items of a kind as an extractor."""
    assert isinstance(kind, Sounds)
    hop, size = framing(kind.rate)
    words = (
        f"mean, deviation and deltas of {BANDS} log-mel bands of {kind.shape[0]:,} samples at "
        f"{kind.rate:,} Hz, windows of {size}, hop {hop}, float32"
    )
    forward = jax.jit(lambda items: (None, statistics(kind.decode(items), kind.rate)))
    return Extractor(NAME, "none", words, forward, own_classes=False, batch_size=BATCH_SIZE)
