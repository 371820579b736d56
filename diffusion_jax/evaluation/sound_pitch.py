"""Pitch of sounds that a model makes, beside that of held-out ones."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.evaluation.model import LEAST, Evaluator, Model, Result, entry
from diffusion_jax.evaluation.sound_measures import Sounds, highest
from diffusion_jax.metrics.intervals import bootstrap, mean, too_few
from diffusion_jax.metrics.sound_pitch import LOWEST, pitch
from diffusion_jax.system.progress import tracked

QUANTILES = {"low": 0.1, "median": 0.5, "high": 0.9}


@dataclasses.dataclass(frozen=True)
class Pitches(Evaluator):
    """How much of the sounds has a pitch, and which: the distribution over sounds.

    The pitch of a sound is the median over its frames that have one; sounds without such frames are
    counted in the passport (`without_pitch`).
    """

    dataset: Dataset  # whose kind is of sounds
    num: int  # held-out sounds, at most
    repeats: int  # resamples for the intervals of quantiles

    def __call__(self, model: Model) -> Result:
        """Of samples: `pitch_voiced`, the mean share of frames with a pitch, and three quantiles.

        `pitch_low`, `pitch_median` and `pitch_high` are those of the pitch in Hz.
        """
        items = np.concatenate([items for items, _ in model.samples()])
        return self._measures(items, "samples", model.passport)

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """The same of held-out sounds, under names that end in `_heldout`."""
        split = self.dataset.splits["heldout"]
        rows = np.random.default_rng(0).permutation(len(split))[: self.num]
        found = self._measures(split.gather(rows)[0], "held-out sounds", passport)
        return {f"{name}_heldout": each for name, each in found.items()}

    def _measures(self, items: np.ndarray, of: str, passport: Mapping[str, Any]) -> Result:
        kind = self.dataset.kind
        assert isinstance(kind, Sounds)
        low, high = LOWEST, highest(kind.rate)
        x = kind.decode(items).mean(-1)
        each = [pitch(one, kind.rate, low, high) for one in tracked(x, "pitch", len(x))]
        voiced = np.array([np.isfinite(one).mean() for one in each])
        medians = np.array([np.nanmedian(one) for one in each if np.isfinite(one).any()])
        passport = {
            **passport,
            "rate": kind.rate,
            "pitch_range": [low, high],
            "without_pitch": len(each) - len(medians),
        }
        few = too_few((of, len(voiced), LEAST))
        result = {"pitch_voiced": entry(few or mean(voiced), len(voiced), passport)}
        few = too_few((f"{of} with pitch", len(medians), LEAST))
        for name, share in QUANTILES.items():
            found = few or bootstrap(functools.partial(_quantile, share), medians, self.repeats)
            result[f"pitch_{name}"] = entry(found, len(medians), passport)
        return result


def _quantile(share: float, values: np.ndarray) -> float:
    return float(np.quantile(values, share))
