"""What samples are asked to show, and what items of the data set are given with."""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from diffusion_jax.data import Split
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.evaluation.judge import Judge
from diffusion_jax.from_config import Config, ConfigError, Parts
from diffusion_jax.generation.labels import as_cond, by_label, cycle_labels
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.runtime import cache_dir
from diffusion_jax.types import Embed

NAMES = 25
"""Held-out names that are drawn where no prompt is given."""
SEED = 0
"""Of masks and of added noise: a picture's are the same whenever it is given."""
TOWARDS = "towards"
"""Beside what the network is given: vectors of texts as the judge of guidance has them."""


class Conditions:
    """Labels, texts and pictures of a config: of samples by their numbers, of items by their rows.

    A part of a picture is given of held-out ones in turn, of training ones if none are held out.

    Args:
        config: of the run.
        parts: what it means.
        judge: of guidance by likeness, if there is one.

    Attributes:
        given: whether samples are given a part of a picture.
    """

    def __init__(self, config: Config, parts: Parts, judge: Judge | None) -> None:
        self._sample, self._dataset, self._reader = config.sample, parts.dataset, parts.task.reader
        self._judge, self._picture = judge, config.image_condition.name
        self._condition = parts.task.condition
        self.given = self._condition is not None
        self._shown = "heldout" if len(self._split("heldout")) else "train"

    def cond(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Conditioning of the samples number `index`, as configured.

        Of those that are given pictures it is all that belongs to these, but for what is asked for.
        """
        if not self.given:
            return self.asked(index)
        rows = self._rows(index)
        own = self.cond_of(self._shown, rows, self._split(self._shown).gather(rows)[1])
        more = self._sample.prompts or self._judge
        return own | (self.asked(index) if more else as_cond(self.labels(index)))

    def asked(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Labels and texts that the samples number `index` are asked to show."""
        found = as_cond(self.labels(index))
        texts = self.prompts(index)
        return found if texts is None else {**found, **self.read(texts)}

    def prompts(self, index: np.ndarray) -> list[str] | None:
        """Texts that samples number `index` are asked to show; None if the network reads none.

        Those that are configured, in turn, or else the names of the pictures that they are given,
        or the first names of held-out images.
        """
        if (self._reader or self._judge) and self.given and not self._sample.prompts:
            return self._split(self._shown).names(self._rows(index))
        texts = self.texts
        return [texts[i % len(texts)] for i in index] if texts else None

    @functools.cached_property
    def texts(self) -> list[str]:
        """What is asked for in words: as configured, or names of held-out images."""
        if self._reader is None and not self._judge:
            return []
        if self._sample.prompts:
            texts = list(self._sample.prompts)
            if self._reader:
                for text in np.array(texts, object)[self._reader.cut(texts)]:
                    print(f"warning: {text[:40]!r}... is too long and ends early", file=sys.stderr)
            return texts
        split = self._split("heldout" if self._split("heldout").captions else "train")
        return list(dict.fromkeys(split.names(np.arange(len(split)))))[:NAMES]

    def _split(self, name: str) -> Split:
        return self._dataset.splits[name]

    def read(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Conditioning on texts, `[N, ...]`; one without a word is none, as in training."""
        reader, judge = self._reader, self._judge
        distinct = list(dict.fromkeys(texts))
        found = reader(distinct) if reader else {}
        # Those that fill texts up were trained on the empty text.
        if reader and not (reader.encoder and reader.encoder.pads):
            blank = np.array([not text.strip() for text in distinct])
            for array in found.values():
                array[blank] = -1 if array.dtype.kind == "i" else 0
        if judge:
            found[TOWARDS] = judge.texts(distinct)
        rows = [distinct.index(text) for text in texts]
        return {name: array[rows] for name, array in found.items()}

    @functools.cache  # noqa: B019  # a run lives as long as the process
    def embed(self, split: str) -> Embed | None:
        """What the captions of "train" or "heldout" become; None if the network reads none."""
        captions = self._split(split).captions
        if self._reader is None or captions is None:
            return None
        return self._reader.embed_all(captions.texts, cache_dir() / "texts", print)

    def cond_of(self, split: str, rows: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Conditioning of items of the data set: their labels, their names, part of themselves."""
        found = by_label(self._dataset.num_classes)(split, rows, labels)
        embed, captions = self.embed(split), self._split(split).captions
        if embed is not None and captions is not None:
            found |= embed(captions.first(rows))
        if not self.given:
            return found
        x_0 = self._dataset.kind.decode(self._split(split).gather(rows)[0])
        each, size = (x_0, np.asarray(rows, np.int32)), self._sample.batch_size
        return found | in_batches(self._of_pictures, jax.random.key(SEED), each, size)

    def labels(self, index: np.ndarray) -> np.ndarray | None:
        """Labels that `sample.labels` gives to the samples number `index`, or their pictures."""
        if self.given and self._dataset.num_classes and self._sample.labels == "all":
            return self._split(self._shown).gather(self._rows(index))[1]
        try:
            return cycle_labels(self._sample.labels, self._dataset.num_classes, index)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def around(self, index: np.ndarray, given: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Each sample between what it was given and the original: as stored, `[3 N, H, W, C]`.

        Args:
            index: numbers of the samples `[N]`.
            given: their `cond['image']`, of which the first channels are the picture.
            items: the samples as stored, `[N, H, W, C]`.
        """
        originals, _ = self._split(self._shown).gather(self._rows(index))
        shown = self._dataset.kind.encode(given[..., : items.shape[-1]])
        return np.stack([shown, items, originals], 1).reshape(-1, *items.shape[1:])

    def _rows(self, index: np.ndarray) -> np.ndarray:
        """The pictures that samples number `index` are given a part of."""
        return (index % len(self._split(self._shown))).astype(np.int32)

    @functools.cached_property
    def _of_pictures(self) -> Any:
        """From a key, and pictures with their rows, to what is given of them."""
        condition = self._condition
        assert condition is not None
        return jax.jit(lambda key, each: dict(condition(each[0], sample_keys(key, each[1]))))

    def made_by(self) -> dict[str, Any]:
        """What is asked for in words and given of pictures, for passports, where there is such."""
        found: dict[str, Any] = {}
        if self.given:
            found["given"] = f"{self._picture} of {self._shown} pictures"
        if self._picture == "low_resolution":
            found["noise"] = self._sample.upscale.noise
        judge = self._judge
        if judge:
            found["judge"] = judge.words
        if self._reader is None and judge is None:
            return found
        return found | {
            "text": self._reader.identity if self._reader else "none",
            "prompts": list(self._sample.prompts) or "names of held-out images",
            "negative": self._sample.negative,
            "compose": [list(pair) for pair in self._sample.compose],
        }
