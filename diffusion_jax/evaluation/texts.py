"""Texts that a model writes: how varied, how correct and how much copied, beside held-out ones."""

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.data.sources import content_hash
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.evaluation.model import LEAST, Evaluator, Model, Result, entry
from diffusion_jax.metrics.intervals import Estimate, bootstrap, mean, too_few
from diffusion_jax.metrics.texts import (
    entropies,
    largest,
    longest_copied,
    pooled_entropies,
    share_of_words,
    word_counts,
    words,
)
from diffusion_jax.system.progress import stage

GRAMS = (1, 3)  # numbers of tokens of which entropies are taken


def tokeniser_of(kind: Tokens) -> str:
    """The tokens of a kind in words, for passports."""
    return f"{len(kind.pieces)} pieces, {content_hash(tuple(kind.pieces))}"


class TextSamples(Evaluator):
    """Entropy, share of real words and longest copies of samples, and of held-out texts.

    Args:
        dataset: of texts, whose kind has `text(items)` and `pieces`.
        reference: the training text, of which samples may have copied.
        num: held-out texts, at most; some metrics depend on the number, which should be that of the
            samples.
        bootstrap_repeats: resamplings for intervals.
        known: real words in lower case; None for those of the training text.
    """

    def __init__(
        self,
        dataset: Dataset,
        reference: str,
        num: int,
        bootstrap_repeats: int,
        known: Set[str] | None = None,
    ) -> None:
        assert isinstance(dataset.kind, Tokens)
        self._dataset, self._kind, self._reference, self._num = (
            dataset,
            dataset.kind,
            reference,
            num,
        )
        self._repeats = bootstrap_repeats
        self._known = set(words(f" {reference} ")) if known is None else known
        self._about: dict[str, Any] = {
            "tokeniser": tokeniser_of(self._kind),
            "window": self._kind.words,
            "reference": f"{dataset.name} train {dataset.fingerprint}",
            "reference_characters": len(reference),
            "known_words": f"{len(self._known)}, {content_hash(sorted(self._known))}",
        }

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """Metrics of held-out texts, under names that end in `_heldout`."""
        split = self._dataset.splits["heldout"]
        rows = np.random.default_rng(0).permutation(len(split))[: self._num]
        found = self._measures(split.gather(rows)[0], passport, "held-out texts")
        return {f"{name}_heldout": made for name, made in found.items()}

    def __call__(self, model: Model) -> Result:
        """Metrics of the model's samples."""
        items = np.concatenate([items for items, _ in model.samples()])
        return self._measures(items, model.passport, "samples")

    def _measures(self, items: np.ndarray, passport: Mapping[str, Any], of: str) -> Result:
        """`entropy_N`, `entropy_N_pool`, `real_words`, `copied_median` and `copied_largest`."""
        kind = self._kind
        num, about = len(items), self._about
        names = *(f"entropy_{n}{pool}" for n in GRAMS for pool in ("", "_pool")), "real_words"
        names += "copied_median", "copied_largest"
        if why := too_few((of, num, LEAST)):
            return {name: entry(why, num, passport, **about) for name in names}
        texts: list[str] = kind.text(items)
        found: dict[str, tuple[Estimate | str, int]] = {}
        for n in GRAMS:
            found[f"entropy_{n}"] = mean(entropies(items, n)), num
            found[f"entropy_{n}_pool"] = mean(pooled_entropies(items, n)), num
        counts = word_counts(texts, self._known)
        why = too_few((f"{of} with words", len(counts), LEAST))
        found["real_words"] = why or share_of_words(counts, self._repeats), len(counts)
        with stage("longest copies of training texts", 1):
            copied = longest_copied(texts, self._reference)
        median = bootstrap(lambda each: float(np.median(each)), copied, self._repeats)
        found["copied_median"] = median, num
        found["copied_largest"] = largest(copied, max(map(len, texts))), num
        return {name: entry(*found[name], passport, **about) for name in names}
