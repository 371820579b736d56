"""How good samples are: each figure with its interval, its passport and what real images reach."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffusion_jax.data import Dataset, arrays
from diffusion_jax.extractor import Extractor
from diffusion_jax.metrics.frechet import frechet_distance, moments
from diffusion_jax.metrics.intervals import bootstrap, wilson
from diffusion_jax.metrics.neighbours import covered, nearest_distances

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
        reference = extractor(arrays(dataset.train)[0])[1]
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
