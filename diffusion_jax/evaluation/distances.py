"""Distances of samples to the data, in features, and the same of held-out items."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data import DataError, Dataset
from diffusion_jax.evaluation.extractor import FEATURES, Extractor
from diffusion_jax.evaluation.model import Chunk, Evaluator, Model, Result, entry
from diffusion_jax.evaluation.references import Statistics, cached_moments
from diffusion_jax.metrics import estimates
from diffusion_jax.metrics.estimates import (
    MOST,
    Found,
    class_estimates,
    moment_estimates,
    prepare,
    set_estimates,
    some,
    variety_estimates,
)
from diffusion_jax.metrics.frechet import Moments, moments
from diffusion_jax.metrics.intervals import Estimate, bootstrap, too_few, wilson
from diffusion_jax.metrics.neighbours import CHUNK as BLOCK
from diffusion_jax.metrics.neighbours import closest_pairs, memorised, two_nearest
from diffusion_jax.system.cache import cached_outputs
from diffusion_jax.system.progress import stage, tracked

CHUNK = 1024  # items in memory at a time
# Too near to a training item: nearer than this quantile of held-out items, or than this ratio times
# the distance to the next one (Yoon et al. 2023).
QUANTILE, RATIO = 0.05, 1 / 3
LEAST = {
    **{name: (*least, 0) for name, least in estimates.LEAST.items()},
    "nearest_training_distance": (2, 1, 0),
    "memorised_share": (2, 1, round(1 / QUANTILE)),  # items that this quantile needs
    "copied_share": (2, 2, 0),
}
"""The smallest numbers of samples, training items and held-out items that each metric needs."""
CLOSEST = 10  # samples shown with their nearest training items
PAGE = "closest.html"  # the same to listen to, of data that are heard


def lacking(
    name: str,
    noun: str,
    num: int,
    reference: int,
    heldout: int,
    of: str = "",
    num_features: int = 0,
) -> str:
    """Why a metric is left out, '' if it is not.

    Args:
        name: of `LEAST`.
        noun: of the data.
        num: of measured items.
        reference: number of training items.
        heldout: number of held-out items.
        of: the measured items, in words; '' for samples.
        num_features: of the extractor.
    """
    least = LEAST[name]
    if name in estimates.LEAST:
        least = *estimates.least(name, num_features), 0
    there = (of or "samples", num), (f"training {noun}", reference), (f"held-out {noun}", heldout)
    return too_few(*((*each, number) for each, number in zip(there, least, strict=True)))


class Features(NamedTuple):
    """Features of items, their distances to training items, and the closest pairs."""

    logits: np.ndarray | None  # `[N, K]`
    features: np.ndarray | None  # `[N, D]`
    labels: np.ndarray | None  # requested
    distances: np.ndarray  # `[N, 2]` to the nearest two of the training items used
    closest: list[tuple[float, np.ndarray, np.ndarray]]  # distance, item, training item


class Distances(Evaluator):
    """Compares samples with a data set, whose features are computed once.

    Args:
        dataset: its training items are the reference.
        extractor: of the features compared; or why there is none: then only distances to training
            items are measured.
        bootstrap_repeats: resamplings for the intervals of that distance.
        cache: folder of cached features and moments of the training images.
        statistics: moments of another reference set in the extractor's features: the Frechet
            distance is to them, and metrics that need the images themselves are not computed.

    Raises:
        DataError: the moments are of other features, or given without an extractor.
    """

    def __init__(
        self,
        dataset: Dataset,
        extractor: Extractor | str,
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
        self._moments: Moments | None = None
        items, labels = train.gather(self._seen)
        self._flat = self._entries(items)
        if isinstance(extractor, str):
            if statistics:
                raise DataError(
                    f"evaluate.reference={statistics.words} needs an extractor to compare features "
                    f"with: {extractor}"
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
            with stage(FEATURES, num):
                features = cached_outputs(
                    cache, key, lambda rows: extractor(train.gather(rows)[0])[1], num, CHUNK
                )
            if num > 1:
                self._moments = cached_moments(cache, key, lambda: moments(features))
            with stage("neighbours of training items", 1):
                self._set = prepare(np.asarray(features[self._seen], np.float32), labels)
            self._of = {"n_reference": num}
        rows = some(len(held))
        chunks = (held.gather(rows[i : i + CHUNK]) for i in range(0, len(rows), CHUNK))
        with stage(FEATURES, len(rows)):
            self._heldout = self._look(chunks) if len(held) else None

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """Metrics of held-out items, under names that end in `_heldout`."""
        if self._heldout is None:
            return {}
        found = self._measures(self._heldout, passport, of=f"held-out {self._dataset.kind.noun}")
        return {f"{name}_heldout": entry for name, entry in found.items()}

    def __call__(self, model: Model) -> Result:
        """Metrics of the model's samples, of which one chunk is in memory at a time.

        Samples closest to a training item are shown next to it in `closest.png`, and on `PAGE` if
        the kind has one.
        """
        found = self._look(model.samples())
        kind, distances, *pairs = self._dataset.kind, *zip(*found.closest, strict=True)
        of, near = map(np.stack, pairs)
        model.show(self.pictures[0][0], kind.sheet(np.concatenate([of, near]), len(of)))
        columns = {"sample": of, f"nearest of the training {kind.noun}": near}
        texts = [f"distance {distance:.3g}" for distance in distances]
        model.write(PAGE, kind.page_of_pairs(columns, texts, model.passport))
        return self._measures(found, model.passport)

    def _entries(self, items: np.ndarray) -> np.ndarray:
        """All entries of the views of items, float32 `[N, D]`."""
        kind = self._dataset.kind
        chunks = (kind.decode(items[i : i + CHUNK]) for i in range(0, len(items), CHUNK))
        return np.concatenate([np.asarray(kind.view.of(x)).reshape(len(x), -1) for x in chunks])

    def _look(self, chunks: Iterable[Chunk]) -> Features:
        """Features, logits and distances of all items."""
        parts: list[tuple[Any, ...]] = []
        closest: list[tuple[float, np.ndarray, np.ndarray]] = []
        for items, labels in chunks:
            look = self._extractor
            logits, features = (None, None) if isinstance(look, str) else look(items)
            flat = self._entries(items)
            blocks = [flat[start : start + BLOCK] for start in range(0, len(flat), BLOCK)]
            each = tracked(blocks, "nearest training items", len(blocks))
            near = [two_nearest(block, self._flat) for block in each]
            distances, nearest = (np.concatenate(column) for column in zip(*near, strict=True))
            parts.append((logits, features, labels, distances))
            for i, number, distance in closest_pairs(distances[:, 0], nearest[:, 0], CLOSEST):
                train = self._split.gather(self._seen[[number]])[0][0]
                closest.append((distance, items[i], train))
            closest = sorted(closest, key=lambda one: one[0])[:CLOSEST]
        columns: Any = zip(*parts, strict=True)
        joined = [None if column[0] is None else np.concatenate(column) for column in columns]
        return Features._make([*joined, closest])

    def _measures(self, found: Features, passport: Mapping[str, Any], of: str = "") -> Result:
        """All metrics of items: of samples, or `of` the data."""
        look, n, num = self._extractor, len(found.distances), len(self._seen)
        if isinstance(look, str):
            result = {} if of else {name: entry(look, n, passport) for name in estimates.LEAST}
        else:
            result = self._in_features(look, found, passport, of)
        near, next_near = found.distances.T
        held = np.empty(0) if self._heldout is None else self._heldout.distances[:, 0]
        made: dict[str, Callable[[], Estimate]] = {
            "nearest_training_distance": lambda: bootstrap(
                lambda d: float(np.median(d)), near, self._repeats, found.labels
            ),
            "memorised_share": lambda: memorised(near, held, QUANTILE, self._repeats),
            "copied_share": lambda: wilson(float(np.mean(near < RATIO * next_near)), n),
        }
        more = {"memorised_share": {"quantile": QUANTILE, "n_heldout": len(held)}}
        words = self._dataset.kind.view.words
        about = {
            "reference": self._train,
            "n_reference": num,
            **({"compared": words} if words else {}),
        }
        for name, estimate in made.items():
            why = lacking(name, self._dataset.kind.noun, n, num, len(held), of)
            value = why or estimate()
            result[name] = entry(value, n, passport, **about, **more.get(name, {}))
        return result

    def _in_features(
        self, look: Extractor, found: Features, passport: Mapping[str, Any], of: str
    ) -> Result:
        """Metrics in the features of the extractor."""
        n, features, labels = len(found.distances), found.features, found.labels
        assert features is not None
        about = {
            "extractor": f"{look.name} {look.digest}",
            "preprocessing": look.preprocessing,
            "reference": self._reference,
        }
        groups: list[tuple[Found, int, dict[str, Any]]]
        with stage("Frechet distance", 1):
            groups = [(moment_estimates(features, labels, self._moments), n, self._of)]
        if found.logits is not None:
            by_class = class_estimates(found.logits, labels)
            if not look.own_classes:
                by_class.pop("accuracy", None)  # not the requested classes
            groups.append((by_class, n, {}))
        if self._set is not None:
            rows = some(n)
            few = None if labels is None else labels[rows]
            with stage("distances between sets", 1):
                sets = set_estimates(features[rows], few, self._set)
            with stage("precision, recall, density, coverage", 1):
                sets |= variety_estimates(features[rows], few, self._set)
            groups.append((sets, len(rows), {"n_reference": len(self._seen)}))
        result: Result = {}
        for group, num, more in groups:
            for name, value in group.items():
                reference = more.get("n_reference", MOST)
                dims = features.shape[1]
                why = lacking(name, self._dataset.kind.noun, num, reference, 0, of, dims)
                key = name if look.own_classes else name.replace("frechet", "fd")
                result[f"{key}_{look.name}"] = entry(
                    why if value is None else value, num, passport, **about, **more
                )
        return result
