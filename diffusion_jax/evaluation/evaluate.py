"""How good a model is: each figure with its interval, its passport and what real images reach."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import DataError, Dataset, Source, to_float
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.evaluation.likelihood import (
    ancestral_bound,
    bits_per_dimension,
    dequantise,
    ode_nll,
    variational_bound,
)
from diffusion_jax.evaluation.references import Statistics, cached_moments
from diffusion_jax.generation.generator import CondOf, Generator, in_batches
from diffusion_jax.metrics.estimates import (
    class_estimates,
    moment_estimates,
    prepare,
    set_estimates,
    some,
    variety_estimates,
)
from diffusion_jax.metrics.frechet import moments
from diffusion_jax.metrics.intervals import Estimate, Z, bootstrap, wilson
from diffusion_jax.metrics.neighbours import closest_pairs, memorised, two_nearest
from diffusion_jax.system.cache import cached_outputs
from diffusion_jax.types import Params

CHUNK = 1024
"""Images read, looked at and dropped at once."""
QUANTILE, RATIO = 0.05, 1 / 3
"""What is too near to a training image: nearer than so many held-out images are, or so much nearer
than to the next one (Yoon et al. 2023)."""
CLOSEST = 10
"""Samples that are shown beside the training image that they are nearest to."""

Result = dict[str, dict[str, Any]]
"""`{"name": {"value", "low", "high", "n", "passport"}}`."""
Chunk = tuple[np.ndarray, np.ndarray | None]
"""Images uint8 `[n, H, W, C]`, and the labels `[n]` that were asked for or None."""


@dataclasses.dataclass
class Looked:
    """What is kept of images: `logits` `[N, K]`, `features` `[N, D]`, the labels asked for.

    `distances` `[N, 2]` to the nearest two of the training images that are looked at, whose
    numbers are `nearest` `[N, 2]`; the `closest` images, each with its training image.
    """

    logits: np.ndarray | None
    features: np.ndarray | None
    labels: np.ndarray | None
    distances: np.ndarray
    nearest: np.ndarray
    closest: list[tuple[float, np.ndarray, np.ndarray]]


class Evaluation:
    """Measures of samples against a data set, what it needs of that prepared once.

    Args:
        dataset: whose training images are the reference.
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
        self._train = f"{dataset.name} train {dataset.fingerprint}"
        self._reference = statistics.words if statistics else self._train
        self._seen = some(len(dataset.train))
        images, labels = dataset.train.gather(self._seen)
        self._flat = _flat(images)
        self._set = None
        if extractor is None:
            if statistics:
                raise DataError(
                    f"evaluate.reference={statistics.words}: {dataset.name} has no classes, so "
                    "that there is no extractor to compare features with"
                )
        elif statistics:
            self._moments, self._of = statistics.moments, {}
            found = extractor(dataset.train.gather(np.arange(1))[0])[1].shape[1]
            if len(self._moments.mean) != found:
                raise DataError(
                    f"evaluate.reference={statistics.words}: is of {len(self._moments.mean)} "
                    f"features, while {extractor.name} has {found}"
                )
        else:
            key = f"{extractor.digest} {extractor.preprocessing} {self._train}"
            num = len(dataset.train)
            features = cached_outputs(
                cache, key, lambda rows: extractor(dataset.train.gather(rows)[0])[1], num, CHUNK
            )
            self._moments = cached_moments(cache, key, lambda: moments(features))
            self._set = prepare(self._moments, np.asarray(features[self._seen], np.float32), labels)
            self._of = {"n_reference": num}
        self._heldout = self._look(_chunks(dataset.heldout)) if len(dataset.heldout) else None

    def heldout(self, passport: Mapping[str, Any]) -> Result:
        """The measures of held-out images, under names that end in `_heldout`."""
        if self._heldout is None:
            return {}
        found = self._measures(self._heldout, passport)
        return {f"{name}_heldout": entry for name, entry in found.items()}

    def __call__(
        self, chunks: Iterable[Chunk], passport: Mapping[str, Any]
    ) -> tuple[Result, np.ndarray]:
        """The measures of images, of which no more than a chunk is held at a time.

        Args:
            chunks: images with their labels; all have labels or none.
            passport: how the images were made; what was measured with is added to it.

        Returns:
            The measures, and uint8 `[2 n, H, W, C]`: those `n` images that are nearest to a
            training image, then these training images.
        """
        looked = self._look(chunks)
        shown = [one[1] for one in looked.closest], [one[2] for one in looked.closest]
        return self._measures(looked, passport), np.concatenate([np.stack(row) for row in shown])

    def _look(self, chunks: Iterable[Chunk]) -> Looked:
        """Features, logits and distances of all images."""
        columns: list[list[Any]] = [[] for _ in range(5)]
        closest: list[tuple[float, np.ndarray, np.ndarray]] = []
        for images, labels in chunks:
            logits, features = self._extractor(images) if self._extractor else (None, None)
            distances, nearest = two_nearest(_flat(images), self._flat)
            found = logits, features, labels, distances, nearest
            for column, part in zip(columns, found, strict=True):
                column.append(part)
            for i, number, distance in closest_pairs(distances[:, 0], nearest[:, 0], CLOSEST):
                train = self._dataset.train.gather(self._seen[[number]])[0][0]
                closest.append((distance, images[i], train))
            closest = sorted(closest, key=lambda one: one[0])[:CLOSEST]
        logits, features, labels, distances, nearest = map(_joined, columns)
        return Looked(logits, features, labels, distances, nearest, closest)

    def _measures(self, looked: Looked, passport: Mapping[str, Any]) -> Result:
        result: Result = {}
        n, base = len(looked.distances), dict(passport)
        of: dict[str, Any]

        def put(name: str, value: Estimate, num: int, **more: Any) -> None:
            result[name] = {**value._asdict(), "n": num, "passport": {**base, **more}}

        features, labels = looked.features, looked.labels
        if self._extractor is not None and features is not None:
            by = {
                "extractor": f"{self._extractor.name} {self._extractor.digest}",
                "preprocessing": self._extractor.preprocessing,
            }
            groups = [(moment_estimates(features, labels, self._moments), n, self._of)]
            if looked.logits is not None:
                by_class = class_estimates(looked.logits, labels)
                if not self._extractor.own_classes:
                    by_class.pop("accuracy", None)  # other classes than were asked for
                groups.append((by_class, n, {}))
            if self._set is not None:
                rows = some(n)
                few = None if labels is None else labels[rows]
                found = set_estimates(features[rows], few, self._set)
                found |= variety_estimates(features[rows], few, self._set)
                groups.append((found, len(rows), {"n_reference": len(self._seen)}))
            for estimates, num, more in groups:
                for name, value in estimates.items():
                    of = {"reference": self._reference, **more}
                    if not self._extractor.own_classes:
                        name = name.replace("frechet", "fd")
                    put(f"{name}_{self._extractor.name}", value, num, **by, **of)
        of = {"reference": self._train, "n_reference": len(self._seen)}
        near, next_near = looked.distances.T
        value = bootstrap(lambda d: float(np.median(d)), near, self._repeats, labels)
        put("nearest_training_distance", value, n, **of)
        if self._heldout is not None:
            limit = self._heldout.distances[:, 0]
            value = memorised(near, limit, QUANTILE, self._repeats)
            put("memorised_share", value, n, **of, quantile=QUANTILE, n_heldout=len(limit))
        copies = float(np.mean(near < RATIO * next_near))
        put("copied_share", wilson(copies, n), n, **of)
        return result


def _flat(images: np.ndarray) -> np.ndarray:
    """Pixels float32 `[N, D]` of uint8 images, in the units of [-1, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 127.5


def _chunks(source: Source) -> Iterable[Chunk]:
    rows = some(len(source))
    for start in range(0, len(rows), CHUNK):
        yield source.gather(rows[start : start + CHUNK])


def _joined(parts: Sequence[np.ndarray | None]) -> Any:
    return None if parts[0] is None else np.concatenate(parts)


def likelihood(
    generator: Generator,
    params: Params,
    dataset: Dataset,
    cond_of: CondOf,
    *,
    num_images: int,
    probes: int,
    noise_levels: int,
    variance: str,
    seed: int,
    batch_size: int,
    passport: Mapping[str, Any],
) -> Result:
    """Bits per dimension of held-out images, and of training images beside them, in three ways.

    Of the model without guidance and clipping, given the images' own conditioning.

    Args:
        generator: whose network, process and times are meant.
        params: of the network.
        dataset: its images, at random without replacement.
        cond_of: their conditioning.
        num_images: of each split, as far as there are so many.
        probes: of Hutchinson's estimate, for each image.
        noise_levels: at which the bound in continuous time is taken, for each image.
        variance: of the ancestral sampler.
        seed: of images, dequantisation, noise and probes.
        batch_size: as for `Generator`.
        passport: as for `evaluate`.
    """
    times = jnp.unique(generator.times)[::-1]  # Restart goes over some of them again
    size = int(np.prod(generator.shape))

    @jax.jit
    def program(whole: Any, each: Any) -> dict[str, Any]:
        (params, key), (x_0, index, cond) = whole, each
        model = generator.denoiser(params), generator.schedule
        keys = [sample_keys(k, index) for k in jax.random.split(key, 4)]
        ode = ode_nll(*model, dequantise(x_0, keys[0]), cond, keys[1], probes)
        bound = variational_bound(*model, x_0, cond, keys[2], levels=True, samples=noise_levels)
        steps = ancestral_bound(*model, times, x_0, cond, keys[3], variance)
        return {
            "ode": bits_per_dimension(ode.by_probe, size, density=True),
            "bound": bits_per_dimension(bound.total, size, density=False),
            "ancestral": bits_per_dimension(steps.total, size, density=False),
            "solver_steps": jnp.full(len(x_0), ode.steps),
        }

    result: Result = {}
    for split, source in (("heldout", dataset.heldout), ("train", dataset.train)):
        rows = np.random.default_rng(seed).permutation(len(source))[:num_images]
        images = to_float(np.stack([source[int(row)]["image"] for row in rows]))
        labels = np.array([source[int(row)]["label"] for row in rows], np.int32)
        each = images, np.arange(len(rows), dtype=np.int32), cond_of(split, rows, labels)
        found = in_batches(program, (params, jax.random.key(seed)), each, batch_size)
        solver_steps = found.pop("solver_steps").max()
        cost: dict[str, dict[str, Any]] = {
            "ode": {"evaluations": f"{6 * solver_steps + 3}, each with {probes} derivative(s)"},
            "bound": {"evaluations": noise_levels},
            "ancestral": {"evaluations": len(times) - 1, "variance": variance},
        }
        if probes > 1:  # of the mean over images, by the probes alone: the interval has it too
            error = np.sqrt(found["ode"].var(1, ddof=1).mean() / found["ode"].size)
            cost["ode"]["hutchinson_standard_error"] = float(error)
        for name, bits in found.items():
            each_bits = bits.reshape(len(rows), -1).mean(1)
            mean = float(each_bits.mean())
            half = Z * float(each_bits.std(ddof=1)) / len(rows) ** 0.5
            reference = f"{dataset.name} {split} {dataset.fingerprint}"
            result[f"bits_{name}_{split}"] = {
                "value": mean,
                "low": mean - half,
                "high": mean + half,
                "n": len(rows),
                "passport": {**passport, "reference": reference, **cost[name]},
            }
    return result
