"""Conditioning of samples as configured, and of items of the data set."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.codec import Codec
from diffusion_jax.data import Dataset, Split
from diffusion_jax.diffusion.conditioning import unconditional
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.generation.generator import Request
from diffusion_jax.generation.labels import as_cond, by_label, cycle_labels, proportional_labels
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import cache_dir
from diffusion_jax.text import Reader
from diffusion_jax.types import Condition, Embed, Params

NAMES = 25  # held-out names that are prompts if none are configured
SEED = 0  # of masks and added noise: always the same for an image
TOWARDS = "towards"  # key of text embeddings for the judge of guidance, not for the network


@dataclasses.dataclass(frozen=True)
class Asked:
    """Labels and texts requested for samples."""

    labels: str = "all"  # as for `cycle_labels`
    prompts: Sequence[str] = ()  # used in turn; names of held-out items if there are none
    negative: str = ""  # that guidance leads away from; '' is none
    compose: Sequence[str] = ()  # further texts that guidance combines with the prompt


@dataclasses.dataclass(frozen=True, eq=False)
class Conditions:
    """Labels, texts and image conditions: of samples by number, of items by row.

    Samples' image conditions are from held-out items in turn, else from training items.
    """

    dataset: Dataset
    reader: Reader | None  # None for a network without texts
    condition: Condition | None  # from items to image conditions, if there are any
    towards: Callable[[Sequence[str]], np.ndarray] | None  # texts' embeddings by guidance's judge
    wanted: Asked  # of samples
    batch_size: int  # items at a time
    codec: Codec | None = None  # of the space of image conditions; None: that of the items

    @property
    def given(self) -> bool:
        """Whether samples are conditioned on images."""
        return self.condition is not None

    @property
    def shown(self) -> str:
        """The split whose images condition samples."""
        return "heldout" if len(self._split("heldout")) else "train"

    def cond(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Conditioning of the samples number `index`, as configured.

        With image conditions, it is that of the images' items, except for requested parts.
        """
        if not self.given:
            return self.asked(index)
        rows = self._rows(index)
        own = self.cond_of(self.shown, rows, self._split(self.shown).gather(rows)[1])
        more = self.wanted.prompts or self.towards
        return own | (self.asked(index) if more else as_cond(self.labels(index)))

    def as_trained(self, num: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Conditioning of `num` samples to compare with the training data; their labels, if any.

        Labels have the proportions of the training data, texts are those of random training items;
        with image conditions, both are those of the images' items.
        """
        split, cond = self._split("train"), self.cond(np.arange(num))
        if self.texts and not self.given and not self.wanted.prompts:
            rows = np.random.default_rng(seed).integers(len(split), size=num)
            cond |= self.read(split.names(rows))
        if "label" not in cond or self.wanted.labels == "none":
            return cond, None
        if not self.given:
            known = self.dataset.arrays("train")[1]
            cond["label"] = proportional_labels(known, self.dataset.num_classes, num)
        return cond, cond["label"]

    def asked(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Conditioning on labels and texts requested for the samples number `index`."""
        found = as_cond(self.labels(index))
        texts = self.prompts(index)
        return found | (self._no_text(len(index)) if texts is None else self.read(texts))

    def explicit(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The same, without what is the default: all classes in turn, and held-out names."""
        found = {} if self.wanted.labels == "all" else as_cond(self.labels(index))
        return found | (self.read(self.prompts(index) or []) if self.wanted.prompts else {})

    def prompts(self, index: np.ndarray) -> list[str] | None:
        """Texts requested for the samples number `index`; None for a network without texts.

        The configured ones in turn, or else the names of their image conditions, or the first names
        of held-out images.
        """
        if (self.reader or self.towards) and self.given and not self.wanted.prompts:
            return self._split(self.shown).names(self._rows(index))
        texts = self.texts
        return [texts[i % len(texts)] for i in index] if texts else None

    @functools.cached_property
    def texts(self) -> list[str]:
        """The distinct prompts: as configured, or names of held-out images."""
        if self.reader is None and not self.towards:
            return []
        if self.wanted.prompts:
            asked = self.wanted
            for text in (*asked.prompts, asked.negative, *asked.compose):
                if rest := self.reader.rest(text) if self.reader else "":
                    print(
                        f"warning: the text {text[:40]!r}... is too long: not read is {rest!r}",
                        file=sys.stderr,
                    )
            return list(asked.prompts)
        split = self._split("heldout" if self._split("heldout").captions else "train")
        return list(dict.fromkeys(split.names(np.arange(len(split)))))[:NAMES]

    def _split(self, name: str) -> Split:
        return self.dataset.splits[name]

    def read(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Conditioning on texts, `[N, ...]`; a text without words is none, as in training."""
        reader, distinct = self.reader, list(dict.fromkeys(texts))
        found = reader(distinct) if reader else {}
        # Encoders that pad texts were trained with the empty text.
        if reader and not reader.pads:
            blank = np.array([not text.strip() for text in distinct])
            for array in found.values():
                array[blank] = -1 if array.dtype.kind == "i" else 0
        if self.towards:
            found[TOWARDS] = self.towards(distinct)
        rows = [distinct.index(text) for text in texts]
        return {name: array[rows] for name, array in found.items()}

    @functools.cache  # noqa: B019  # a run exists as long as the process
    def embed(self, split: str) -> Embed | None:
        """Embedding of the captions of "train" or "heldout"; None for a network without texts."""
        captions = self._split(split).captions
        if self.reader is None or captions is None:
            return None
        return self.reader.embed_all(captions.texts, cache_dir() / "texts", print)

    def cond_of(self, split: str, rows: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Conditioning of items of the data set: labels, names, image conditions."""
        found = by_label(self.dataset.num_classes)(split, rows, labels)
        embed, captions = self.embed(split), self._split(split).captions
        if embed is not None and captions is not None:
            found |= embed(captions.first(rows))
        if not self.given:
            return found
        x = self.dataset.kind.decode(self._split(split).gather(rows)[0])
        each = x, np.asarray(rows, np.int32)
        key, size = make_key(SEED), self.batch_size
        return found | in_batches(self._of_pictures, key, each, size, "conditioning")

    def labels(self, index: np.ndarray) -> np.ndarray | None:
        """Labels requested for the samples number `index`, or those of their image conditions.

        Raises:
            ValueError: a label is not one of the classes.
        """
        if self.given and self.dataset.num_classes and self.wanted.labels == "all":
            return self._split(self.shown).gather(self._rows(index))[1]
        return cycle_labels(self.wanted.labels, self.dataset.num_classes, index)

    def request(
        self,
        index: np.ndarray,
        cond: Mapping[str, np.ndarray],
        scale: float,
        frozen: Mapping[str, Params],
    ) -> Request:
        """Samples number `index` with their conditioning, and further inputs of guidance."""

        def of_all(text: str) -> Any:
            found = self.read([text] * len(index))
            return {name: value for name, value in found.items() if name != TOWARDS}

        given: dict[str, Any] = {}
        cond = dict(cond)
        if self.wanted.negative:
            given["negative"] = of_all(self.wanted.negative)
        elif no_text := self._no_text(len(index)):
            off: Any = unconditional(jax.tree.map(jnp.asarray, cond))
            given["negative"] = {**off, **no_text}
        if self.wanted.compose:
            given["others"] = tuple(of_all(text) for text in self.wanted.compose)
        if TOWARDS in cond:
            given[TOWARDS] = cond.pop(TOWARDS)
        return Request(index.astype(np.int32), cond, np.float32(scale), given, frozen)

    def _no_text(self, num: int) -> dict[str, np.ndarray]:
        """What stands for no text where that is not zeros: arrays `[num, ...]`."""
        none = self.reader.no_text if self.reader else {}
        return {name: array.repeat(num, axis=0) for name, array in none.items()}

    def around(self, index: np.ndarray, given: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Each sample between its image condition and the original: as stored, `[3 N, H, W, C]`.

        Args:
            index: numbers of the samples `[N]`.
            given: their `cond['image']`, whose first channels are the image.
            items: the samples as stored, `[N, H, W, C]`.
        """
        originals, _ = self._split(self.shown).gather(self._rows(index))
        if self.codec:
            own = jnp.asarray(given[..., : self.codec.shape[-1]])
            given = np.asarray(self.codec.decode({}, own))
        shown = self.dataset.kind.encode(given[..., : items.shape[-1]])
        return np.stack([shown, items, originals], 1).reshape(-1, *items.shape[1:])

    def _rows(self, index: np.ndarray) -> np.ndarray:
        """Rows of the images that condition samples number `index`."""
        return (index % len(self._split(self.shown))).astype(np.int32)

    @functools.cached_property
    def _of_pictures(self) -> Any:
        """From a key, and images with their rows, to image conditions."""
        condition = self.condition
        assert condition is not None
        return jax.jit(lambda key, each: dict(condition(each[0], sample_keys(key, each[1]))))
