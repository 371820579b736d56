"""How good a model is: each figure with its interval, its passport and what real images reach."""

from collections.abc import Callable, Mapping
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


def evaluate(
    samples: np.ndarray,
    labels: np.ndarray | None,
    dataset: Dataset,
    extractor: Extractor | None,
    bootstrap_repeats: int,
    passport: Mapping[str, Any],
    cache: Path,
) -> Result:
    """Measures samples, and held-out images beside them (the names that end in `_heldout`).

    Args:
        samples: uint8 `[N, H, W, C]`.
        labels: what was asked for `[N]`, or None.
        dataset: whose training images are the reference.
        extractor: its classifier; None for data without classes, where only the distance to the
            nearest training image is measured.
        bootstrap_repeats: resamplings for intervals.
        passport: how the samples were made; what was measured with is added to it.
        cache: where the features of training images are kept.
    """
    train_images, _ = arrays(dataset.train, MAX_REFERENCES)
    heldout_images, heldout_labels = arrays(dataset.heldout, MAX_REFERENCES)
    result: Result = {}
    base = {**passport, "reference": f"{dataset.name} train {dataset.fingerprint}"}

    def put(name: str, value: tuple[float, float, float], n: int, **more: Any) -> None:
        fields = dict(zip(("value", "low", "high"), value, strict=True))
        result[name] = {**fields, "n": n, "passport": {**base, **more}}

    groups = {"": (samples, labels), "_heldout": (heldout_images, heldout_labels)}
    if extractor is not None:
        by = {"extractor": f"{extractor.name} {extractor.digest}"}
        all_images, _ = arrays(dataset.train)
        reference = cached_outputs(
            cache,
            f"{extractor.digest} train {dataset.fingerprint}",
            lambda rows: extractor(all_images[rows])[1],
            len(all_images),
        )
        whole = moments(reference)
        some = reference[:MAX_REFERENCES]

        def distance(features: np.ndarray) -> float:
            return frechet_distance(moments(features), whole)

        for suffix, (images, wanted) in groups.items():
            seen, features = extractor(images)
            n, name = len(images), extractor.name
            fd, low, high = bootstrap(distance, features, bootstrap_repeats, wanted)
            put(
                f"frechet_{name}{suffix}",
                (fd, max(low, 0.0), high),
                n,
                **by,
                n_reference=len(reference),
            )
            if wanted is not None:
                put(f"accuracy_{name}{suffix}", wilson(seen == wanted), n, **by)
            put(f"precision_{name}{suffix}", wilson(covered(features, some)), n, **by)
            put(f"recall_{name}{suffix}", wilson(covered(some, features)), n, **by)
    flat = train_images.reshape(len(train_images), -1) / 127.5
    for suffix, (images, _) in groups.items():
        near = nearest_distances(images.reshape(len(images), -1) / 127.5, flat)
        median: Callable[[np.ndarray], float] = lambda d: float(np.median(d))  # noqa: E731
        value = bootstrap(median, near, bootstrap_repeats)
        put(f"nearest_training_distance{suffix}", value, len(images), n_reference=len(flat))
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
