"""Whether two recordings are of one voice, by an outside network that has heard none of the data.

It is Resemblyzer's speaker encoder (generalised end-to-end loss, Wan et al. 2018), whose weights
are a file of its package. torch is not needed.
"""

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion_jax.metrics.spectra import hann, mel_filters
from diffusion_jax.models.torch_files import read_pickled

RATE = 16_000  # Hz, of the network
PACKAGE = "pip install --no-deps resemblyzer==0.1.4"
SIZE, HOP, BANDS = 400, 160, 40  # of its mel spectra, which are not logarithmic
PART, STEP, COVERED = 160, 77, 0.75  # frames of a part and between parts; least share of the last
SECONDS = PART * HOP / RATE  # of a part
LEAST_RMS = 10**-1.5  # to which a recording is amplified that has less: -30 dB
LAYERS = 3
FRAME, QUIET = 480, 1e-4  # samples whose power is compared with that of the loudest, and how much


def without(rate: int) -> str:
    """Why voices in recordings of a rate cannot be compared; '' if they can."""
    if rate != RATE:
        return f"is for {RATE:,} Hz, and these recordings are of {rate:,} Hz"
    missing = importlib.util.find_spec("resemblyzer") is None
    return f"needs the weights of a package that is no part of this project: {PACKAGE}" * missing


def speaker_similarity(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """The cosine of the voices of recordings `[B, T, C]`, whose channels are mixed: `[B]`.

    Of what is `spoken` in the reference. NaN where one is silent. Embeddings have no negative
    entries, so that it is in [0, 1].
    """

    def cosine(s: np.ndarray, e: np.ndarray) -> float:
        s, e = s.mean(-1), e.mean(-1)
        there = spoken(s)
        return float(voice(s[there]) @ voice(e[there]))

    return np.array([cosine(*pair) for pair in zip(reference, estimate, strict=True)])


def spoken(x: np.ndarray) -> np.ndarray:
    """Where a recording `[T]` is not silent, bool `[T]`: 40 dB below its loudest 30 ms at most.

    Or up to three times 30 ms before or after such a place.
    """
    places = np.arange(len(x)) // FRAME
    power = np.bincount(places, np.square(x, dtype=np.float64)) / np.bincount(places)
    loud = power > QUIET * np.max(power)
    return np.asarray(np.convolve(loud, np.ones(7), "same") > 0)[places]


def voice(x: np.ndarray) -> np.ndarray:
    """The embedding of a recording at 16 kHz, `[T]`: 256 numbers of norm 1, NaN for silence.

    As `VoiceEncoder.embed_utterance` of the package, of a recording of at least -30 dB.
    """
    rms = np.sqrt(np.mean(np.square(x, dtype=np.float64))) if len(x) else 0.0
    if not rms > 0:
        return np.full(256, np.nan)
    mel = mel_spectrum(x * max(1.0, LEAST_RMS / rms))
    weights = _weights()
    found = lstm(weights, LAYERS, np.stack([mel[i : i + PART] for i in parts(len(x))]))
    found = np.maximum(found @ weights["linear.weight"].T + weights["linear.bias"], 0)
    mean = (found / np.linalg.norm(found, axis=1, keepdims=True)).mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def parts(length: int) -> list[int]:
    """The frames at which parts of a recording of so many samples begin.

    The last one is left out if it would have less than `COVERED` of a part, and is not the first.
    """
    frames = -(-(length + 1) // HOP)
    starts = list(range(0, max(1, frames - PART + STEP + 1), STEP))
    if len(starts) > 1 and (length - starts[-1] * HOP) / (PART * HOP) < COVERED:
        starts.pop()
    return starts


def mel_spectrum(x: np.ndarray) -> np.ndarray:
    """Mel powers of a recording `[T]` with zeros behind it for its last part, `[frames, BANDS]`."""
    length = max(len(x), (parts(len(x))[-1] + PART) * HOP)
    padded = np.pad(np.asarray(x, np.float64), (SIZE // 2, length - len(x) + SIZE // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, SIZE)[::HOP]
    power = np.abs(np.fft.rfft(frames * hann(SIZE), axis=1)) ** 2
    return np.asarray(power @ mel_filters(RATE, SIZE, BANDS, 0.0, RATE / 2), np.float32)


def lstm(weights: Mapping[str, np.ndarray], layers: int, x: np.ndarray) -> np.ndarray:
    """The last state `[B, H]` of a network of LSTM layers in sequences `[B, T, D]`.

    The weights have torch's names and its order of gates: input, forget, cell, output.
    """
    for layer in range(layers):
        into, over = (weights[f"lstm.weight_{one}_l{layer}"] for one in ("ih", "hh"))
        bias = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
        gates = x @ into.T + bias
        state = cell = np.zeros((len(x), over.shape[1]), gates.dtype)
        states = []
        for t in range(x.shape[1]):
            i, f, g, o = np.split(gates[:, t] + state @ over.T, 4, axis=1)
            cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
            state = _sigmoid(o) * np.tanh(cell)
            states.append(state)
        x = np.stack(states, axis=1)
    return np.asarray(x[:, -1])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    spec = importlib.util.find_spec("resemblyzer")
    if spec is None or not spec.origin:
        raise ValueError(f"comparing voices needs {PACKAGE}")
    found = read_pickled(Path(spec.origin).with_name("pretrained.pt"))["model_state"]
    return {name: np.asarray(value, np.float32) for name, value in found.items()}
