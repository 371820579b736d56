"""Loss on held-out items, by noise level."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.generation.labels import CondOf
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.training.state import TrainState
from diffusion_jax.types import Context, LossFn, Params

LEVELS = 10
MAX_BATCHES = 8


class HeldoutLoss:
    """Mean loss on held-out items; each call uses the same items, times and noise.

    Args:
        loss: without dropout.
        dataset: without held-out items the result is empty.
        cond_of: conditioning of its items.
        size: items in a batch; the last batch is filled up.
    """

    def __init__(self, loss: LossFn, dataset: Dataset, cond_of: CondOf, size: int) -> None:
        items, labels = dataset.arrays("heldout", size * MAX_BATCHES)

        @jax.jit
        def program(whole: Any, batch: Any) -> Any:
            losses, metrics = loss(whole[0], batch, whole[1])
            return {"loss": losses, **metrics}

        self._program, self._size = program, size
        self._batches: list[dict[str, Any]] = []
        order = np.random.default_rng(0).permutation(len(items))
        for start in range(0, len(items), size):
            rows = np.resize(order[start : start + size], size)
            cond = cond_of("heldout", rows, labels[rows])
            batch = {"x": dataset.kind.decode(items[rows]), "cond": cond, "index": np.arange(size)}
            self._batches.append(batch)

    def __call__(
        self, params: Params, state: TrainState, frozen: Mapping[str, Params]
    ) -> dict[str, float]:
        """Means as `heldout/NAME`, and of `error` in each tenth of `t`, `_tX` with its middle X.

        Args:
            params: to measure, such as an average of the state.
            state: one copy of it; its step and averages are inputs of the loss.
            frozen: parameters that are not trained, by name.
        """
        found = []
        for number, batch in enumerate(self._batches):
            context = Context(make_key(number), state.step, state.ema, frozen)
            whole = params, context
            found.append(in_batches(self._program, whole, batch, self._size, "held-out loss"))
        if not found:
            return {}
        columns = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        t, error = (columns.pop(name, None) for name in ("t", "error"))
        scalars = {f"heldout/{name}": float(values.mean()) for name, values in columns.items()}
        if t is not None:
            level = np.minimum((t * LEVELS).astype(int), LEVELS - 1)
            for i in np.unique(level):
                scalars[f"heldout/error_t{(i + 0.5) / LEVELS:.2f}"] = float(
                    error[level == i].mean()
                )
        return scalars
