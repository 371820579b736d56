"""A mix of two data sets, such as pictures of a subject and others of its class (DreamBooth)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import Dataset, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sources import Items, Source, content_hash


@dataclass(frozen=True, eq=False)
class Mixed:
    """Items of two sources: a `Source` in which some have several rows."""

    sources: Sequence[Source]
    rows: Sequence[np.ndarray]  # of each source, the row of each item here, source after source
    resident: ClassVar[bool] = False
    varies: ClassVar[bool] = False

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        start, found = 0, []
        for source, table in zip(self.sources, self.rows, strict=True):
            here = np.flatnonzero((rows >= start) & (rows < start + len(table)))
            if len(here):
                own = None if draws is None else draws[here]
                found.append((here, *source.gather(table[rows[here] - start], own)))
            start += len(table)
        places, items, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(places)
        return items[order], labels[order]


def mixed(first: Dataset, second: Dataset, share: float) -> Dataset:
    """The data set whose training items are those of both, `share` of them of the second.

    In an epoch every item of one of them is there once, and those of the other in turn. Held-out
    items are the first's alone.

    Raises:
        DataError: they differ in their kind, their classes, or in whether they have captions.
    """
    for what, ours, theirs in (
        ("items", first.kind.words, second.kind.words),
        ("classes", first.class_names, second.class_names),
        ("captions", first.captioned, second.captioned),
    ):
        if ours != theirs:
            raise DataError(
                f"data.mix.dir: its {what} are {theirs!r}, and those of data.dir {ours!r}; they "
                "can only be mixed where they agree."
            )
    parts = [dataset.splits["train"] for dataset in (first, second)]
    if not all(map(len, parts)):
        raise DataError("data.mix.dir: there are no training items in it, or in data.dir.")
    shares = 1 - share, share
    epoch = max(len(part) / own for part, own in zip(parts, shares, strict=True))
    rows = [
        np.resize(np.arange(len(part)), round(epoch * own))
        for part, own in zip(parts, shares, strict=True)
    ]
    texts = [
        part.captions.of_image(int(row))
        for part, own in zip(parts, rows, strict=True)
        for row in own
        if part.captions is not None
    ]
    source = Mixed([part.source for part in parts], rows)
    train = Split(source, Captions.of(texts) if texts else None)
    return replace(
        first,
        splits={**first.splits, "train": train},
        fingerprint=content_hash(first.fingerprint, second.fingerprint, share),
        skipped=(*first.skipped, *second.skipped),
        notes=(*first.notes, *second.notes),
    )
