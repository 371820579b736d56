"""How well an autoencoder gives items back, and the law of its latents."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.evaluation.model import Evaluator, Model, Result, chosen, entry
from diffusion_jax.metrics.fidelity import psnr
from diffusion_jax.metrics.intervals import bootstrap
from diffusion_jax.objectives.autoencoder import Coder, divergence
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Params

SHOWN = 20  # items on a sheet
PAIRS = 5  # in a row
SHEET, PRIOR = "reconstructions.png", "prior.png"
MOST = 10_000
"""Training items whose latents are measured, at most."""


class Moments(NamedTuple):
    """Means over the positions of one item's latents, of each channel, twice `[B, Z]`."""

    first: Array  # E z
    second: Array  # E z^2


def moments(mean: Array, logvar: Array) -> Moments:
    """Of latents with normal laws, twice `[B, ..., Z]`."""
    axes = tuple(range(1, mean.ndim - 1))
    return Moments(mean.mean(axes), (mean**2 + jnp.exp(logvar)).mean(axes))


def mean_and_std(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the latents of items with `moments` `[N, 2, Z]`: twice `[Z]`."""
    first, second = np.asarray(of, np.float64).mean(0)
    return first, np.sqrt(np.maximum(second - first**2, 0))


def latent_statistics(
    coder: Coder, params: Params, dataset: Dataset, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of the latents of training items, float64 `[Z]`.

    Of `MOST` items at most. Exact for latents that are drawn: their variance is that of the means
    plus the mean variance.
    """
    source = dataset.splits["train"]
    rows = np.random.default_rng(0).permutation(len(source))[:MOST]

    @jax.jit
    def program(params: Params, x: Array) -> Array:
        return jnp.stack(moments(*coder.encode(params, x)), 1)

    found = [
        in_batches(
            program, params, dataset.kind.decode(source.gather(part)[0]), batch_size, "encoding"
        )
        for part in np.split(rows, range(10 * batch_size, len(rows), 10 * batch_size))
    ]
    return mean_and_std(np.concatenate(found))


def reconstruct(coder: Coder, params: Params, x: Array) -> Array:
    """What the means of the latents of `x` `[B, ...]` are decoded to."""
    return coder.decode(params, coder.encode(params, x)[0])


def reconstruction_sheet(coder: Coder, params: Params, dataset: Dataset) -> np.ndarray:
    """A picture of the first held-out items, or training items, each before its reconstruction."""
    split = "heldout" if len(dataset.splits["heldout"]) else "train"
    items, _ = dataset.splits[split].gather(np.arange(min(SHOWN, len(dataset.splits[split]))))
    x_hat = jax.jit(functools.partial(reconstruct, coder))(params, dataset.kind.decode(items))
    return _beside(dataset, items, dataset.kind.encode(x_hat))


def _beside(dataset: Dataset, items: np.ndarray, found: np.ndarray) -> np.ndarray:
    pairs = np.stack([items, found], 1).reshape(-1, *items.shape[1:])
    return dataset.kind.sheet(pairs, 2 * PAIRS)


@dataclasses.dataclass(frozen=True)
class Reconstruction(Evaluator):
    """PSNR and ST-LPIPS of held-out items, and what their latents tell and how they spread."""

    coder: Coder
    distance: Callable[[Any, Any], Array] | str  # ST-LPIPS of images, or why it is left out
    num: int  # of items, at most
    repeats: int  # resamples for the intervals
    pictures = (
        (SHEET, "Held-out data, each before its reconstruction"),
        (
            PRIOR,
            "Decoded from noise with the mean and the deviation of the latents: no pictures are "
            "expected here, as only a model of the latents draws those that belong together",
        ),
    )

    def __call__(self, model: Model) -> Result:
        """`psnr`, `stlpips`, `kl_bits` per item, and `latent_std_I` of each channel."""
        x, _, _ = chosen(model, "heldout", self.num)

        @jax.jit
        def program(params: Params, x: Array) -> tuple[Array, Array, Array]:
            mean, logvar = self.coder.encode(params, x)
            kl = divergence(mean, logvar) / math.log(2)
            return self.coder.decode(params, mean), kl, jnp.stack(moments(mean, logvar), 1)

        size, kind = model.batch_size, model.dataset.kind
        x_hat, kl, of_latents = in_batches(program, model.params, x, size, "reconstructing")
        found = kind.encode(x_hat)
        model.show(SHEET, _beside(model.dataset, kind.encode(x[:SHOWN]), found[:SHOWN]))
        self._show_prior(model, x[:SHOWN], *mean_and_std(of_latents))
        whole = kind.decode(found)  # as it is stored: clipped and rounded
        result = {
            "psnr": self._mean(psnr(x, whole, 2.0), model),
            "stlpips": self._distances(model, x, whole),
            "kl_bits": self._mean(kl, model),
        }
        for channel in range(of_latents.shape[-1]):
            of = of_latents[..., channel : channel + 1]
            spread = bootstrap(lambda of: float(mean_and_std(of)[1][0]), of, self.repeats)
            result[f"latent_std_{channel}"] = entry(spread, len(x), model.passport)
        return result

    def _mean(self, values: np.ndarray, model: Model) -> Any:
        found = bootstrap(lambda of: float(np.mean(of)), values, self.repeats)
        return entry(found, len(values), model.passport)

    def _distances(self, model: Model, x: np.ndarray, whole: np.ndarray) -> Any:
        if isinstance(self.distance, str):
            return entry(self.distance, len(x), model.passport)
        parts = range(0, len(x), model.batch_size)
        found = [
            np.asarray(self.distance(*(one[i : i + model.batch_size] for one in (x, whole))))
            for i in parts
        ]
        return self._mean(np.concatenate(found), model)

    def _show_prior(self, model: Model, x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
        """Saves what noise like the latents is decoded to."""

        @jax.jit
        def program(params: Params, x: Array, key: Array) -> Array:
            shape = self.coder.encode(params, x)[0].shape
            z = jnp.asarray(mean) + jnp.asarray(std) * jax.random.normal(key, shape)
            return self.coder.decode(params, z)

        kind = model.dataset.kind
        items = kind.encode(program(model.params, x, make_key(model.seed)))
        model.show(PRIOR, kind.sheet(items, 2 * PAIRS))
