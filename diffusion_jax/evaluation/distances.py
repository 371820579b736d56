"""How near samples are to the data, in features: with what real items reach beside it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data import DataError, Dataset
from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.evaluation.model import Chunk, Evaluator, Model, Result, entry
from diffusion_jax.evaluation.references import Statistics, cached_moments
from diffusion_jax.metrics.estimates import (
    class_estimates,
    moment_estimates,
    prepare,
    set_estimates,
    some,
    variety_estimates,
)
from diffusion_jax.metrics.frechet import moments
from diffusion_jax.metrics.intervals import bootstrap, wilson
from diffusion_jax.metrics.neighbours import closest_pairs, memorised, two_nearest
from diffusion_jax.system.cache import cached_outputs

CHUNK = 1024  # items read, looked at and dropped at once
# Too near to a training item: nearer than so many held-out items are, or so much nearer than to the
# next one (Yoon et al. 2023).
QUANTILE, RATIO = 0.05, 1 / 3
CLOSEST = 10  # samples that are shown beside the training item that they are nearest to


class Features(NamedTuple):
    """What is kept of items."""

    logits: np.ndarray | None  # `[N, K]`
    features: np.ndarray | None  # `[N, D]`
    labels: np.ndarray | None  # that were asked for
    distances: np.ndarray  # `[N, 2]` to the nearest two of the training items that are looked at
    closest: list[tuple[float, np.ndarray, np.ndarray]]  # distance, item, training item


class Distances(Evaluator):
    """Samples against a data set, of which all that is needed is prepared once.

    Args:
        dataset: whose training items are the reference.
        extractor: in whose features they are compared; None for data without classes, where only
            the distance to the training images is measured.
        bootstrap_repeats: resamplings for the intervals of that distance.
        cache: where features and moments of the training images are kept.
        statistics: moments of another reference set in the extractor's features: the Frechet
            distance is taken to them, and nothing that would need the images themselves.

    Raises:
        DataError: these moments are not of such features.
    """

    def __init__(
        self,
        dataset: Dataset,
        extractor: Extractor | None,
        bootstrap_repeats: int,
        cache: Path,
        statistics: Statistics | None = None,
    ) -> None:
        self._dataset, self._extractor, self._repeats = dataset, extractor, bootstrap_repeats
        pairs = "(above), and those training items (below)"
        if not dataset.kind.placed:
            pairs = "and those training items"
        self.pictures = (("closest.png", f"The samples nearest to a training item {pairs}"),)
        train, held = dataset.splits["train"], dataset.splits["heldout"]
        self._train = f"{dataset.name} train {dataset.fingerprint}"
        self._reference = statistics.words if statistics else self._train
        self._split, self._seen, self._set = train, some(len(train)), None
        items, labels = train.gather(self._seen)
        self._flat = self._entries(items)
        if extractor is None:
            if statistics:
                raise DataError(
                    f"evaluate.reference={statistics.words}: {dataset.name} has no classes, so "
                    "that there is no extractor to compare features with"
                )
        elif statistics:
            self._moments, self._of = statistics.moments, {}
            found = extractor(train.gather(np.arange(1))[0])[1].shape[1]
            if len(self._moments.mean) != found:
                raise DataError(
                    f"evaluate.reference={statistics.words}: is of {len(self._moments.mean)} "
                    f"features, while {extractor.name} has {found}"
                )
        else:
            key, num = f"{extractor.digest} {extractor.preprocessing} {self._train}", len(train)
            features = cached_outputs(
                cache, key, lambda rows: extractor(train.gather(rows)[0])[1], num, CHUNK
            )
            self._moments = cached_moments(cache, key, lambda: moments(features))
            self._set = prepare(self._moments, np.asarray(features[self._seen], np.float32), labels)
            self._of = {"n_reference": num}
        rows = some(len(held))
        chunks = (held.gather(rows[i : i + CHUNK]) for i in range(0, len(rows), CHUNK))
        self._heldout = self._look(chunks) if len(held) else None

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """The measures of held-out items, under names that end in `_heldout`."""
        if self._heldout is None:
            return {}
        found = self._measures(self._heldout, passport)
        return {f"{name}_heldout": entry for name, entry in found.items()}

    def __call__(self, model: Model) -> Result:
        """The measures of its samples, of which no more than a chunk is held at a time.

        Those nearest to a training item are shown beside it, in `closest.png`.
        """
        found = self._look(model.samples())
        items = np.stack([one[place] for place in (1, 2) for one in found.closest])
        model.show(self.pictures[0][0], self._dataset.kind.sheet(items, len(found.closest)))
        return self._measures(found, model.passport)

    def _entries(self, items: np.ndarray) -> np.ndarray:
        """All entries of items, float32 `[N, D]`, in the units of `x`."""
        return self._dataset.kind.decode(items).reshape(len(items), -1)

    def _look(self, chunks: Iterable[Chunk]) -> Features:
        """Features, logits and distances of all items."""
        parts: list[tuple[Any, ...]] = []
        closest: list[tuple[float, np.ndarray, np.ndarray]] = []
        for items, labels in chunks:
            logits, features = self._extractor(items) if self._extractor else (None, None)
            distances, nearest = two_nearest(self._entries(items), self._flat)
            parts.append((logits, features, labels, distances))
            for i, number, distance in closest_pairs(distances[:, 0], nearest[:, 0], CLOSEST):
                train = self._split.gather(self._seen[[number]])[0][0]
                closest.append((distance, items[i], train))
            closest = sorted(closest, key=lambda one: one[0])[:CLOSEST]
        columns: Any = zip(*parts, strict=True)
        joined = [None if column[0] is None else np.concatenate(column) for column in columns]
        return Features._make([*joined, closest])

    def _measures(self, found: Features, passport: Mapping[str, Any]) -> Result:
        result: Result = {}
        n, features, labels = len(found.distances), found.features, found.labels
        if (look := self._extractor) is not None and features is not None:
            of: dict[str, Any] = {
                "extractor": f"{look.name} {look.digest}",
                "preprocessing": look.preprocessing,
                "reference": self._reference,
            }
            groups = [(moment_estimates(features, labels, self._moments), n, self._of)]
            if found.logits is not None:
                by_class = class_estimates(found.logits, labels)
                if not look.own_classes:
                    by_class.pop("accuracy", None)  # other classes than were asked for
                groups.append((by_class, n, {}))
            if self._set is not None:
                rows = some(n)
                few = None if labels is None else labels[rows]
                sets = set_estimates(features[rows], few, self._set)
                sets |= variety_estimates(features[rows], few, self._set)
                groups.append((sets, len(rows), {"n_reference": len(self._seen)}))
            for estimates, num, more in groups:
                for name, value in estimates.items():
                    if not look.own_classes:
                        name = name.replace("frechet", "fd")
                    result[f"{name}_{look.name}"] = entry(value, num, passport, **of, **more)
        of = {"reference": self._train, "n_reference": len(self._seen)}
        near, next_near = found.distances.T
        value = bootstrap(lambda d: float(np.median(d)), near, self._repeats, labels)
        result["nearest_training_distance"] = entry(value, n, passport, **of)
        if self._heldout is not None:
            limit = self._heldout.distances[:, 0]
            value = memorised(near, limit, QUANTILE, self._repeats)
            of_it = {**of, "quantile": QUANTILE, "n_heldout": len(limit)}
            result["memorised_share"] = entry(value, n, passport, **of_it)
        copies = float(np.mean(near < RATIO * next_near))
        result["copied_share"] = entry(wilson(copies, n), n, passport, **of)
        return result
