"""Restored recordings beside what was given and the original, paired by recording."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.evaluation.model import (
    LEAST,
    Evaluator,
    Model,
    Result,
    chosen,
    entry,
    rows_of,
)
from diffusion_jax.evaluation.sound_measures import MEASURES, Sounds
from diffusion_jax.evaluation.sound_words import Recogniser
from diffusion_jax.metrics.calibration import mean_line
from diffusion_jax.metrics.intervals import bootstrap, mean, too_few
from diffusion_jax.metrics.sound import snr
from diffusion_jax.metrics.sound_words import word_errors

SHOWN = 5  # recordings on the sheet
SHEET = "restored.png"
WORDS = "word_error"
Restore = Callable[[Model, np.ndarray, np.ndarray, Any, int], tuple[np.ndarray, np.ndarray]]
"""`(model, x [N, T, C], index [N], cond, K) -> (given [N, T, C], samples [N, K, T, C])`."""


def as_conditioned(
    model: Model, x: np.ndarray, index: np.ndarray, cond: Mapping[str, np.ndarray], num: int
) -> tuple[np.ndarray, np.ndarray]:
    """`Restore` by a network that is given the damaged recording, `cond["image"]`."""
    codec, kind = model.draws.codec, model.dataset.kind
    image = jnp.asarray(cond["image"][..., : codec.shape[-1]])
    given = np.asarray(codec.decode(model.frozen, image))
    of_all = [kind.decode(model.draw(index + k * len(index), cond)) for k in range(num)]
    return given, np.stack(of_all, 1)


@dataclasses.dataclass(frozen=True)
class Restored(Evaluator):
    """Measures of restored recordings, of what was given, and the gain, each paired by recording.

    A figure of a restoration is the mean over its samples. Recordings for which a measure is not
    defined, as silent ones, are counted in the passport (`undefined`) and left out of all three.
    """

    restore: Restore
    measures: Sequence[str]  # of `MEASURES`, and `WORDS`
    num: int  # held-out recordings, at most
    samples: int  # of each
    bands: Sequence[float]  # dB of input SNR between which gains are told apart, ascending
    recognise: Recogniser | None  # for `WORDS`
    repeats: int  # resamples for the interval of word errors
    pictures = ((SHEET, "Given, restored and original, in rows of three"),)

    def __call__(self, model: Model) -> Result:
        """`restored_NAME`, `given_NAME` and `gain_NAME`, which is the mean difference.

        And `gain_NAME_BAND` by input SNR, that of what is given; of two samples or more also
        `mse_1`, `mse_K`, `mse_limit` and `mse_left`, those of `mean_line`.
        """
        x, index, cond = chosen(model, "heldout", self.num)
        given, samples = self.restore(model, x, index, cond, self.samples)
        kind = model.dataset.kind
        assert isinstance(kind, Sounds)
        cells = np.stack([given, samples[:, 0], x], 1)[:SHOWN].reshape(-1, *x.shape[1:])
        model.show(SHEET, kind.sheet(kind.encode(cells), 3))
        passport = {**model.passport, "rate": kind.rate, "samples": self.samples}
        result: Result = {}
        for name in (name for name in self.measures if name != WORDS):
            measure = MEASURES[name].of
            of = [measure(x, samples[:, k], kind.rate) for k in range(self.samples)]
            values = np.mean(of, 0), measure(x, given, kind.rate)
            result |= self._paired(name, *values, snr(x, given), passport)
        if self.recognise:
            rows = rows_of(model, "heldout", self.num)
            texts = model.dataset.splits["heldout"].names(rows)
            sounds = {"restored": samples[:, 0], "given": given, "original": x}
            result |= self._words(texts, sounds, kind.rate, passport)
        if self.samples > 1:
            line = mean_line(x.reshape(len(x), -1), samples.reshape(*samples.shape[:2], -1))
            ends = {"1": line.error[0], str(self.samples): line.error[-1]}
            of_line = {**ends, "limit": line.limit, "left": line.left}
            few = too_few(("held-out sounds", len(x), LEAST))
            for name, found in of_line.items():
                result[f"mse_{name}"] = entry(few or found, len(x), passport)
        return result

    def _paired(
        self,
        name: str,
        restored: np.ndarray,
        given: np.ndarray,
        at: np.ndarray,
        passport: Mapping[str, Any],
    ) -> Result:
        """Entries of a measure `[N]`, with gains by the input SNR `at` `[N]`."""
        defined = np.isfinite(restored) & np.isfinite(given)
        values = {"restored": restored, "given": given, "gain": restored - given}
        found = {
            f"{what}_{name}": _mean(each[defined], passport, undefined=int((~defined).sum()))
            for what, each in values.items()
        }
        band = np.digitize(at, self.bands)
        for number, words in enumerate(names_of(self.bands) if len(self.bands) else ()):
            rows = defined & (band == number)
            found[f"gain_{name}_{words}"] = _mean(values["gain"][rows], passport, input_snr=words)
        return found

    def _words(
        self,
        texts: Sequence[str],
        sounds: Mapping[str, np.ndarray],
        rate: int,
        passport: Mapping[str, Any],
    ) -> Result:
        """Word errors of each of the sounds `[N, T, C]`, and how many fewer are restored."""
        assert self.recognise is not None
        counts = {
            name: word_errors(texts, [self.recognise(one.mean(-1), rate) for one in x])
            for name, x in sounds.items()
        }
        words = counts["given"][:, 1]
        edits = {name: count[:, 0] for name, count in counts.items()}
        edits["gain"] = edits["restored"] - edits["given"]
        few = too_few(("recordings with words", int((words > 0).sum()), LEAST))
        return {
            f"{name}_{WORDS}": entry(
                few or bootstrap(_rate, np.stack([each, words], 1), self.repeats),
                len(texts),
                {**passport, "words": int(words.sum())},
            )
            for name, each in edits.items()
        }


def _rate(rows: np.ndarray) -> float:
    """All edits over all words of `[N, 2]`."""
    edits, words = rows.sum(0)
    return float(edits / max(words, 1))


def _mean(values: np.ndarray, passport: Mapping[str, Any], **more: Any) -> Any:
    few = too_few(("recordings for which it is defined", len(values), LEAST))
    return entry(few or mean(values), len(values), passport, **more)


def names_of(bands: Sequence[float]) -> list[str]:
    """Names of bands between ascending edges in dB: `below_0db`, `0_to_10db`, `from_10db`."""
    edges = [f"{edge:g}" for edge in bands]
    between = [f"{a}_to_{b}db" for a, b in itertools.pairwise(edges)]
    return [f"below_{edges[0]}db", *between, f"from_{edges[-1]}db"]
