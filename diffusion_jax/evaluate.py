"""How good a model is: each figure with its interval, its passport and what real images reach."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.corruption import sample_keys
from diffusion_jax.data import Dataset, arrays, to_float
from diffusion_jax.extractor import Extractor
from diffusion_jax.features import cached_outputs
from diffusion_jax.likelihood import (
    ancestral_bound,
    bits_per_dimension,
    dequantise,
    ode_nll,
    variational_bound,
)
from diffusion_jax.metrics.frechet import frechet_distance, moments
from diffusion_jax.metrics.intervals import Z, bootstrap, wilson
from diffusion_jax.metrics.neighbours import covered, nearest_distances
from diffusion_jax.sample import Generator, as_cond, in_batches
from diffusion_jax.types import Params

MAX_REFERENCES = 10_000
"""Training images that precision, recall and nearest neighbours look at."""

Result = dict[str, dict[str, Any]]
"""`{"name": {"value", "low", "high", "n", "passport"}}`."""


class Evaluation:
    """Measures of samples against a data set, what it needs of that prepared once.

    Args:
        dataset: whose training images are the reference.
        extractor: in whose features they are compared; None for data without classes, where only
            the distance to the nearest training image is measured.
        bootstrap_repeats: resamplings for intervals.
        cache: where the features of the training images are kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        extractor: Extractor | None,
        bootstrap_repeats: int,
        cache: Path,
    ) -> None:
        self._dataset, self._extractor, self._repeats = dataset, extractor, bootstrap_repeats
        self._reference = f"{dataset.name} train {dataset.fingerprint}"
        images, _ = arrays(dataset.train, MAX_REFERENCES)
        self._flat = images.reshape(len(images), -1) / 127.5
        if extractor is not None:
            whole, _ = arrays(dataset.train)
            self._features = cached_outputs(
                cache,
                f"{extractor.digest} {extractor.preprocessing} {self._reference}",
                lambda rows: extractor(whole[rows])[1],
                len(whole),
            )
            self._moments = moments(self._features)

    def heldout(self, passport: Mapping[str, Any]) -> Result:
        """The measures of held-out images, under names that end in `_heldout`."""
        images, labels = arrays(self._dataset.heldout, MAX_REFERENCES)
        found = self(images, labels, passport)
        return {f"{name}_heldout": entry for name, entry in found.items()}

    def __call__(
        self, images: np.ndarray, labels: np.ndarray | None, passport: Mapping[str, Any]
    ) -> Result:
        """The measures of images.

        Args:
            images: uint8 `[N, H, W, C]`.
            labels: what was asked for `[N]`, or None.
            passport: how the images were made; what was measured with is added to it.
        """
        result: Result = {}
        n, base = len(images), {**passport, "reference": self._reference}

        def put(name: str, value: tuple[float, float, float], **more: Any) -> None:
            fields = dict(zip(("value", "low", "high"), value, strict=True))
            result[name] = {**fields, "n": n, "passport": {**base, **more}}

        if self._extractor is not None:
            name = self._extractor.name
            by = {
                "extractor": f"{name} {self._extractor.digest}",
                "preprocessing": self._extractor.preprocessing,
            }
            own = self._extractor.own_classes
            some = self._features[:MAX_REFERENCES]
            logits, features = self._extractor(images)

            def distance(features: np.ndarray) -> float:
                return frechet_distance(moments(features), self._moments)

            fd, low, high = bootstrap(distance, features, self._repeats, labels)
            many = {"n_reference": len(self._features)}
            put(f"{'frechet' if own else 'fd'}_{name}", (fd, max(low, 0.0), high), **by, **many)
            if labels is not None and own and logits is not None:
                put(f"accuracy_{name}", wilson(logits.argmax(-1) == labels), **by)
            put(f"precision_{name}", wilson(covered(features, some)), **by)
            put(f"recall_{name}", wilson(covered(some, features)), **by)
        near = nearest_distances(images.reshape(n, -1) / 127.5, self._flat)
        value = bootstrap(lambda d: float(np.median(d)), near, self._repeats)
        put("nearest_training_distance", value, n_reference=len(self._flat))
        return result


def likelihood(
    generator: Generator,
    params: Params,
    dataset: Dataset,
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

    Of the model without guidance and clipping, given the images' own labels.

    Args:
        generator: whose network, process and times are meant.
        params: of the network.
        dataset: its images, at random without replacement.
        num_images: of each split, as far as there are so many.
        probes: of Hutchinson's estimate, for each image.
        noise_levels: at which the bound in continuous time is taken, for each image.
        variance: of the ancestral sampler.
        seed: of images, dequantisation, noise and probes.
        batch_size: as for `Generator`.
        passport: as for `evaluate`.
    """
    times = jnp.unique(generator.times)[::-1]  # Restart goes over some of them again
    size, classes = int(np.prod(generator.shape)), dataset.num_classes

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
        each = images, np.arange(len(rows), dtype=np.int32), as_cond(labels if classes else None)
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
