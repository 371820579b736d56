"""Mends damaged recordings by classical methods. See damaged.md.

    PYTHONPATH=. python experiments/sound/classical.py --data runs/sound

They are told what was done.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.interpolate
import scipy.linalg
import scipy.signal

from diffusion_jax.data.sound_files import resampled
from diffusion_jax.data.sound_reading import read_sound
from experiments.sound.damaged import CLIP, FACTOR, PROBLEMS, known, narrowed
from experiments.sound.folders import RATE, processed

AROUND, ORDER, ROUNDS = 4096, 512, 10
"""Of autoregressive interpolation: samples that are looked at on either side, coefficients, and how
often they are estimated."""
FRAME, HOP, REDUNDANCY, TOLERANCE = 1024, 256, 2, 1e-2
"""Of sparse declipping: samples, frequencies for each of them, and the share of a frame that may be
left to other frequencies than those that were found."""
TRAINED = 200
"""Recordings from which the gain of the folded band is taken."""
Mend = Callable[[np.ndarray, Path], np.ndarray]
"""`(given [T], folder of training recordings) -> [T]`, both in [-1, 1]."""


def unchanged(y: np.ndarray, train: Path) -> np.ndarray:
    """What is given."""
    return y


def splines(y: np.ndarray, train: Path) -> np.ndarray:
    """Cubic splines through what is not clipped, at least the limit elsewhere."""
    good, time = np.abs(y) < CLIP, np.arange(len(y))
    x = scipy.interpolate.CubicSpline(time[good], y[good])(time)
    return np.where(good, y, np.sign(y) * np.maximum(np.sign(y) * x, CLIP)).clip(-1, 1)


def sparse(y: np.ndarray, train: Path) -> np.ndarray:
    """A-SPADE (Alg. 1, Kitic, Bertin & Gribonval 2015), with one more frequency in each iteration.

    In each frame the fewest frequencies are looked for that agree with what is given.
    """
    frames = -(-(len(y) + FRAME) // HOP)
    padded = np.pad(y, (FRAME - HOP, frames * HOP + FRAME))
    starts = HOP * np.arange(frames)
    at = starts[:, None] + np.arange(FRAME)
    found, weight = np.zeros((2, len(padded)))
    window = scipy.signal.windows.hann(FRAME, sym=False) + 1e-6
    np.add.at(found, at, window * _sparse_frames(padded[at]))
    np.add.at(weight, at, np.broadcast_to(window, at.shape))
    return (found / np.maximum(weight, 1e-9))[FRAME - HOP :][: len(y)].clip(-1, 1)


def _sparse_frames(y: np.ndarray) -> np.ndarray:
    """Frames `[F, FRAME]`."""
    size, result = FRAME * REDUNDANCY, y.copy()
    weight = np.full(size // 2 + 1, 2.0)  # frequencies of real signals, but for the ends, are two
    weight[[0, -1]] = 1
    rows = np.flatnonzero((np.abs(y) >= CLIP).any(1))
    x = y = y[rows]
    high, low, u = y >= CLIP, y <= -CLIP, np.zeros((len(rows), len(weight)), complex)
    for many in range(1, len(weight)):
        spectrum = scipy.fft.rfft(x, size, norm="ortho") + u
        least = -np.partition(-np.abs(spectrum), many - 1)[:, many - 1 : many]
        kept = np.where(np.abs(spectrum) >= least, spectrum, 0)
        x = scipy.fft.irfft(kept - u, size, norm="ortho")[:, :FRAME]
        x = np.where(high, np.maximum(x, CLIP), np.where(low, np.minimum(x, -CLIP), y))
        result[rows] = x
        off = scipy.fft.rfft(x, size, norm="ortho") - kept
        u = u + off
        go_on = np.sqrt((weight * np.abs(off) ** 2).sum(1)) > TOLERANCE * np.linalg.norm(y, axis=1)
        rows, x, u, high, low, y = (each[go_on] for each in (rows, x, u, high, low, y))
        if not len(rows):
            break
    return result


def autoregressive(y: np.ndarray, train: Path) -> np.ndarray:
    """Least squares of the residual of an autoregressive model (Janssen, Veldhuis & Vries 1986)."""
    hole = np.flatnonzero(~known(len(y)))
    start, stop = max(hole[0] - AROUND, 0), min(hole[-1] + 1 + AROUND, len(y))
    x, missing = y[start:stop].copy(), hole - start
    for _ in range(ROUNDS):
        x[missing] = _least_squares(x, missing, _coefficients(x))
    return np.concatenate([y[:start], x.clip(-1, 1), y[stop:]])


def _coefficients(x: np.ndarray) -> np.ndarray:
    """The prediction error filter `[1 + ORDER]` of `[T]`, by its autocorrelation."""
    size = scipy.fft.next_fast_len(2 * len(x))
    r = scipy.fft.irfft(np.abs(scipy.fft.rfft(x, size)) ** 2, size)[: ORDER + 1]
    r[0] *= 1 + 1e-9
    return np.append(1, -scipy.linalg.solve_toeplitz(r[:-1], r[1:]))


def _least_squares(x: np.ndarray, missing: np.ndarray, a: np.ndarray) -> np.ndarray:
    """What is missing of `[T]`, so that the energy of `a * x` is least."""
    b = np.correlate(a, a, "full")  # symmetric, [1 + 2 ORDER]
    others = x.copy()
    others[missing] = 0
    right = -scipy.signal.fftconvolve(others, b, "same")[missing]
    first = np.zeros(len(missing))
    half = b[len(a) - 1 :][: len(missing)]
    first[: len(half)] = half
    return scipy.linalg.solve_toeplitz(first, right)


def upsampled(y: np.ndarray, train: Path) -> np.ndarray:
    """At 16 kHz, with nothing above 4 kHz."""
    return resampled(y[:, None].astype(np.float32), RATE // FACTOR, RATE)[:, 0]


def folded(y: np.ndarray, train: Path) -> np.ndarray:
    """The mirror image of the low band above 4 kHz, where it is as strong as in training."""
    return upsampled(y, train) + _gain(train) * _mirror(y)


def _mirror(y: np.ndarray) -> np.ndarray:
    """The band above 4 kHz of a recording between whose samples there are zeros."""
    x = np.zeros(FACTOR * len(y))
    x[::FACTOR] = FACTOR * y
    return x - upsampled(y, Path())


@functools.cache
def _gain(train: Path) -> float:
    """Root of the power above 4 kHz over that of the mirror image, over training recordings."""
    power = np.zeros(2)
    for path in sorted(train.glob("*.wav"))[:TRAINED]:
        x = read_sound(path)[0][:, 0]
        x = x[: len(x) // FACTOR * FACTOR]
        low = narrowed(x)
        for i, part in enumerate((x - upsampled(low, train), _mirror(low))):
            power[i] += np.sum(part**2)
    return float(np.sqrt(power[0] / power[1]))


METHODS: dict[str, dict[str, Mend]] = {
    "clipped": {"given": unchanged, "cubic splines": splines, "A-SPADE": sparse},
    "narrow": {"nothing above 4 kHz": upsampled, "folded": folded},
    "gaps": {"given": unchanged, "autoregressive": autoregressive},
}
"""By problem and name."""


def mended(data: Path, problem: str, name: str) -> int:
    """Writes what a method makes of the damaged recordings; returns how many they are."""
    method = METHODS[problem][name]
    return processed(data / problem, name, ("given",), lambda y: method(y, data / "train"))


def main() -> None:
    """Runs all methods."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/sound"))
    options = parser.parse_args()
    for problem in PROBLEMS:
        for name in METHODS[problem]:
            print(
                f"{problem}, {name}: {mended(options.data, problem, name)} recordings", flush=True
            )


if __name__ == "__main__":
    main()
