"""Speech recognised by an outside recogniser, which has heard none of the data."""

import dataclasses
import functools
import importlib.util
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.evaluation.model import LEAST, Evaluator, Model, Result, entry
from diffusion_jax.evaluation.sound_measures import Sounds
from diffusion_jax.metrics.intervals import too_few
from diffusion_jax.metrics.sound_words import word_error_rate, word_errors
from diffusion_jax.system.progress import tracked

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


@dataclasses.dataclass(frozen=True)
class WordsHeard(Evaluator):
    """Word errors of speech that a model makes of held-out transcripts, beside that of recordings.

    A transcript that several windows of one class have is left out: none of them has all of it.
    """

    dataset: Dataset  # of sounds with transcripts
    recognise: Recogniser
    classes: Sequence[str]  # those of the recogniser's language; none: all
    num: int  # held-out recordings, at most
    repeats: int  # resamples for the interval

    def __call__(self, model: Model) -> Result:
        """`word_error`: one sample for each transcript, of its recording's class."""
        rows, labels, _ = self._heldout()
        cond = model.cond_of("heldout", rows, labels)
        items = model.draw(np.arange(len(rows), dtype=np.int32), cond) if len(rows) else rows
        return {"word_error": self._measured(items, rows, model.passport)}

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """`word_error_heldout`, of the recordings themselves."""
        rows, _, items = self._heldout()
        return {"word_error_heldout": self._measured(items, rows, passport)}

    def _heldout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Up to `num` random rows, their labels, and their items."""
        split = self.dataset.splits["heldout"]
        rows = np.random.default_rng(0).permutation(len(split))
        (items, labels), texts = split.gather(rows), split.names(rows)
        windows = Counter(zip(labels.tolist(), texts, strict=True))
        names = self.dataset.class_names
        fit = np.array(
            [
                windows[int(label), text] == 1
                and (not self.classes or names[label] in self.classes)
                for label, text in zip(labels, texts, strict=True)
            ],
            bool,
        ).nonzero()[0][: self.num]
        return rows[fit], labels[fit], items[fit]

    def _measured(self, items: np.ndarray, rows: np.ndarray, passport: Mapping[str, Any]) -> Any:
        kind = self.dataset.kind
        assert isinstance(kind, Sounds)
        of: dict[str, Any] = {"recogniser": PACKAGE, "classes": list(self.classes)}
        if few := too_few(("held-out transcripts of one window", len(rows), LEAST)):
            return entry(few, len(rows), passport, **of)
        x = kind.decode(items).mean(-1)
        found = [self.recognise(each, kind.rate) for each in tracked(x, "words", len(x))]
        counts = word_errors(self.dataset.splits["heldout"].names(rows), found)
        of["words"] = int(counts[:, 1].sum())
        return entry(word_error_rate(counts, self.repeats), len(rows), passport, **of)
