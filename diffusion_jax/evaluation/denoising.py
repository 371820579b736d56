"""Whether a network denoises images that it never saw as well as those that it was trained on."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset, Source, to_float
from diffusion_jax.diffusion.corruption import diffuse, sample_keys, sample_noise
from diffusion_jax.generation.generator import CondOf, Generator, in_batches
from diffusion_jax.metrics.intervals import Z
from diffusion_jax.types import Params

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def denoising_errors(
    generator: Generator,
    params: Params,
    dataset: Dataset,
    cond_of: CondOf,
    *,
    num_images: int,
    seed: int,
    batch_size: int,
    passport: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Squared errors of `x_0_hat` per dimension, of training and of held-out images, by `t`.

    A network that has learned the law of the data has the same of both; one that has learned its
    training images denoises these better. Given the images' own conditioning, without guidance.

    Args:
        generator: whose network and process are meant.
        params: of the network.
        dataset: its images, at random without replacement.
        cond_of: their conditioning.
        num_images: of each split, as far as there are so many.
        seed: of images and noise.
        batch_size: as for `Generator`.
        passport: how the network was trained.

    Returns:
        For each of `TIMES` entries as in `result.json`: `denoising_error_train_t0.10`,
        `denoising_error_heldout_t0.10`, and their ratio, `denoising_gap_t0.10`, held-out over
        training. Intervals are over images, with this network given.
    """

    @jax.jit
    def program(whole: Any, each: Any) -> jax.Array:
        (params, key), (x_0, index, cond) = whole, each
        denoise = generator.denoiser(params)

        def errors(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
            keys = sample_keys(jax.random.fold_in(key, numbered[0]), index)
            eps, t = sample_noise(keys, generator.shape), jnp.full(len(x_0), numbered[1])
            x_0_hat = denoise(diffuse(generator.schedule, x_0, eps, t), t, cond).x_0
            return jnp.mean((x_0_hat - x_0) ** 2, axis=tuple(range(1, x_0.ndim)))

        # In a loop, so that the network is compiled once.
        return jax.lax.map(errors, (jnp.arange(len(TIMES)), jnp.asarray(TIMES))).T

    def measured(split: str, source: Source) -> np.ndarray:
        rows = np.random.default_rng(seed).permutation(len(source))[:num_images]
        images, labels = source.gather(rows)
        cond = cond_of(split, rows, labels)
        each = to_float(images), np.arange(len(rows), dtype=np.int32), cond
        errors: np.ndarray = in_batches(program, (params, jax.random.key(seed)), each, batch_size)
        return errors

    seen, unseen = measured("train", dataset.train), measured("heldout", dataset.heldout)
    result: dict[str, dict[str, Any]] = {}
    for number, time in enumerate(TIMES):
        about = {**passport, "reference": f"{dataset.name} {dataset.fingerprint}", "t": time}
        a, b = seen[:, number], unseen[:, number]
        figures = {"error_train": _mean(a), "error_heldout": _mean(b), "gap": ratio(b, a)}
        for name, (value, low, high) in figures.items():
            result[f"denoising_{name}_t{time:.2f}"] = {
                "value": value,
                "low": low,
                "high": high,
                "n": len(a) if name == "error_train" else len(b),
                "passport": about if name != "gap" else {**about, "n_train": len(a)},
            }
    return result


def ratio(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """`(mean a / mean b, low, high)` of two independent samples of positive values `[N]`, `[M]`.

    The interval is that of the difference of the means' logarithms, whose variances are the
    relative ones of the means (delta method).
    """
    relative = [np.var(x, ddof=1) / len(x) / np.mean(x) ** 2 for x in (a, b)]
    value, half = float(np.mean(a) / np.mean(b)), Z * float(np.sqrt(sum(relative)))
    return value, value * float(np.exp(-half)), value * float(np.exp(half))


def _mean(values: np.ndarray) -> tuple[float, float, float]:
    mean, half = float(values.mean()), Z * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, mean - half, mean + half
