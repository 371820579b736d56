"""Measures of a recording beside its original, by name, and what each of them needs."""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from diffusion_jax.evaluation.sound_speaker import SECONDS, speaker_similarity, without
from diffusion_jax.metrics import sound
from diffusion_jax.metrics.sound_estoi import estoi
from diffusion_jax.metrics.sound_pitch import HIGHEST, LOWEST, pitch, pitch_errors, shortest

PESQ_RATES = {"wb": (16_000,), "nb": (8_000, 16_000)}
"""In Hz, by mode: wideband (P.862.2) and narrowband (P.862.1)."""
LEAST = {"estoi": 0.5, "pesq": 0.25, "speaker_similarity": SECONDS}  # of a recording
PESQ = "pip install pesq"


@runtime_checkable
class Sounds(Protocol):
    """A kind of data whose items are recordings, `x` `[..., T, C]` in [-1, 1]."""

    shape: tuple[int, ...]  # T and C
    rate: int  # in Hz


class Measure(NamedTuple):
    """A number for each recording beside its original."""

    # `(reference [B, T, C], estimate, rate) -> [B]`, NaN where it is not defined
    of: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    # Why it cannot be computed of recordings of a rate and a length in seconds; '' if it can.
    lacks: Callable[[int, float], str] = lambda rate, seconds: ""


def pesq_scores(reference: np.ndarray, estimate: np.ndarray, rate: int, mode: str) -> np.ndarray:
    """PESQ as MOS-LQO `[B]`, of the first channel, by the package `pesq`; NaN where it fails.

    It fails where it finds no utterance: such recordings are counted, and not averaged as -1.

    Args:
        reference: clean speech `[B, T, C]`.
        estimate: of the same shape.
        rate: of both, one of `PESQ_RATES[mode]`.
        mode: "wb" or "nb"; their scales differ.
    """
    from pesq import PesqError, pesq

    def score(s: np.ndarray, e: np.ndarray) -> float:
        try:
            return float(pesq(rate, np.asarray(s[:, 0]), np.asarray(e[:, 0]), mode))
        except (PesqError, ValueError):
            return float("nan")

    return np.array([score(*pair) for pair in zip(reference, estimate, strict=True)])


def highest(rate: int) -> float:
    """The highest pitch that is looked for, in Hz."""
    return min(HIGHEST, rate / 4)


def gross_pitch(reference: np.ndarray, estimate: np.ndarray, rate: int) -> np.ndarray:
    """Share of frames whose pitch is off by more than half a semitone, `[B]`.

    Of those that have a pitch in both recordings `[B, T, C]`, whose channels are mixed; NaN if none
    has.
    """

    def share(s: np.ndarray, e: np.ndarray) -> float:
        found = pitch_errors(*(pitch(x.mean(-1), rate, LOWEST, highest(rate)) for x in (s, e)))
        return found.gross / found.both if found.both else float("nan")

    return np.array([share(*pair) for pair in zip(reference, estimate, strict=True)])


def lacks_pitch(rate: int, seconds: float) -> str:
    """Why recordings of a rate and a length have no pitch; '' if they may have."""
    if rate / 4 <= LOWEST:
        return f"is for rates above {4 * LOWEST:g} Hz, and these recordings are of {rate:,} Hz"
    least = shortest(rate) / rate
    few = f"needs {least:.3g} s, and these recordings are of {seconds:.3g} s"
    return few if seconds < least else ""


def _lacks_pesq(mode: str) -> Callable[[int, float], str]:
    def lacks(rate: int, seconds: float) -> str:
        if rate not in PESQ_RATES[mode]:
            known = " or ".join(f"{each:,}" for each in PESQ_RATES[mode])
            return f"is for {known} Hz, and these recordings are of {rate:,} Hz"
        if importlib.util.find_spec("pesq") is None:
            return f"needs a package that is no part of this project: {PESQ}"
        return _lacks_length("pesq")(rate, seconds)

    return lacks


def _lacks_speaker(rate: int, seconds: float) -> str:
    return without(rate) or _lacks_length("speaker_similarity")(rate, seconds)


def _lacks_length(name: str) -> Callable[[int, float], str]:
    least = LEAST[name]
    return lambda rate, seconds: (
        "" if seconds >= least else f"needs {least} s, and these recordings are of {seconds:.3g} s"
    )


MEASURES = {
    "si_sdr_uncentred": Measure(lambda s, e, rate: sound.si_sdr_uncentred(s, e)),
    "snr": Measure(lambda s, e, rate: sound.snr(s, e)),
    "estoi": Measure(estoi, _lacks_length("estoi")),
    "lsd": Measure(lambda s, e, rate: sound.log_spectral_distance(s, e)),
    "stft": Measure(lambda s, e, rate: sound.multi_resolution_stft(s, e)),
    "gross_pitch": Measure(gross_pitch, lacks_pitch),
    "speaker_similarity": Measure(lambda s, e, rate: speaker_similarity(s, e), _lacks_speaker),
    "pesq_wb": Measure(lambda s, e, rate: pesq_scores(s, e, rate, "wb"), _lacks_pesq("wb")),
    "pesq_nb": Measure(lambda s, e, rate: pesq_scores(s, e, rate, "nb"), _lacks_pesq("nb")),
}
"""By name. SI-SDR, SNR and LSD are in dB; of LSD, stft and gross_pitch less is better, of all
others more."""
