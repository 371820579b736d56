"""Speech recognised by an outside recogniser, which has heard none of the data."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 16_000  # Hz, of the acoustic model
PACKAGE = "pocketsphinx==5.1.1"
Recogniser = Callable[[np.ndarray, int], str]
"""`(x [T] in [-1, 1], rate) -> text`."""


def without(rate: int) -> str:
    """Why speech of a rate cannot be recognised; '' if it can."""
    if rate != RATE:
        return f"needs recordings of {RATE:,} Hz, and these are of {rate:,} Hz"
    missing = importlib.util.find_spec("pocketsphinx") is None
    return f"needs a recogniser: pip install {PACKAGE}" if missing else ""


def recognised(x: np.ndarray, rate: int) -> str:
    """The English words that pocketsphinx hears in a recording `[T]`, with its own model.

    A recording is heard as a whole and by itself: the recogniser adapts to no earlier ones.

    Raises:
        ValueError: the rate is not 16 kHz, or the package is missing.
    """
    if why := without(rate):
        raise ValueError(f"recognising speech {why}")
    decoder = _decoder()
    steps = np.clip(np.rint(np.asarray(x, np.float64) * 2**15), -(2**15), 2**15 - 1)
    decoder.start_utt()
    decoder.process_raw(steps.astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""


@functools.cache
def _decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=float(RATE), loglevel="FATAL")
