"""Loss on held-out images, by noise level."""

from typing import Any

import jax
import numpy as np

from diffusion_jax.data import Dataset, arrays, to_float
from diffusion_jax.objectives import GaussianLoss
from diffusion_jax.sample import CondOf, in_batches
from diffusion_jax.types import Array, Params

LEVELS = 10
MAX_BATCHES = 8


class HeldoutLoss:
    """Mean error on the same held-out images, times and noise whenever it is called.

    Args:
        loss: without dropout; its batches are `loss.batch_size` images, the last filled up.
        dataset: without held-out images the result is empty.
        cond_of: their conditioning.
    """

    def __init__(self, loss: GaussianLoss, dataset: Dataset, cond_of: CondOf) -> None:
        size = loss.batch_size
        images, labels = arrays(dataset.heldout, size * MAX_BATCHES)

        @jax.jit
        def program(whole: Any, batch: Any) -> tuple[Array, Array, Array]:
            losses, metrics = loss(whole[0], batch, whole[1])
            return losses, metrics["t"], metrics["mse"]

        self._program, self._size = program, size
        self._batches: list[dict[str, Any]] = []
        order = np.random.default_rng(0).permutation(len(images))
        for start in range(0, len(images), size):
            rows = np.resize(order[start : start + size], size)
            cond = cond_of("heldout", rows, labels[rows])
            batch = {"x": to_float(images[rows]), "cond": cond, "index": np.arange(size)}
            self._batches.append(batch)

    def __call__(self, params: Params) -> dict[str, float]:
        """`heldout/loss`, and `heldout/mse_tX` for each tenth of `t` with its middle as X."""
        found = []
        for number, batch in enumerate(self._batches):
            whole = params, jax.random.key(number)
            found.append(in_batches(self._program, whole, batch, self._size))
        if not found:
            return {}
        loss, t, mse = (np.concatenate(column) for column in zip(*found, strict=True))
        scalars = {"heldout/loss": float(loss.mean())}
        level = np.minimum((t * LEVELS).astype(int), LEVELS - 1)
        for i in np.unique(level):
            scalars[f"heldout/mse_t{(i + 0.5) / LEVELS:.2f}"] = float(mse[level == i].mean())
        return scalars
