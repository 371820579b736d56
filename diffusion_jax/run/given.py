"""Pictures of the data set of which samples are given a part."""

import jax
import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.system.devices import in_batches
from diffusion_jax.types import Array, Condition, Key

SEED = 0
"""Of masks and of added noise: a picture's are the same whenever it is given."""


class Given:
    """What samples are given: of held-out pictures in turn, of training pictures if none are.

    Args:
        condition: from pictures to conditioning.
        dataset: its images.
        batch_size: so many at once.
    """

    def __init__(self, condition: Condition, dataset: Dataset, batch_size: int) -> None:
        self._dataset, self._batch_size = dataset, batch_size
        self.split = "heldout" if len(dataset.splits["heldout"]) else "train"

        @jax.jit
        def program(key: Key, each: tuple[Array, Array]) -> dict[str, Array]:
            x_0, rows = each
            return dict(condition(x_0, sample_keys(key, rows)))

        self._program = program

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The pictures, of `split`, that samples number `index` [N] are given a part of."""
        found: np.ndarray = (index % len(self._dataset.splits[self.split])).astype(np.int32)
        return found

    def cond(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Conditioning on the images `rows` [N] of a split, arrays `[N, ...]`."""
        items, _ = self._dataset.splits[split].gather(rows)
        each = self._dataset.kind.decode(items), np.asarray(rows, np.int32)
        found: dict[str, np.ndarray] = in_batches(
            self._program, jax.random.key(SEED), each, self._batch_size
        )
        return found

    def labels(self, index: np.ndarray) -> np.ndarray:
        """Those of the pictures of samples number `index`."""
        labels: np.ndarray = self._dataset.splits[self.split].gather(self.rows(index))[1]
        return labels

    def around(self, index: np.ndarray, given: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Each sample between what it was given and the original: uint8 `[3 N, H, W, C]`.

        Args:
            index: numbers of the samples `[N]`.
            given: their `cond['image']`, of which the first channels are the picture.
            images: the samples, uint8 `[N, H, W, C]`.
        """
        originals, _ = self._dataset.splits[self.split].gather(self.rows(index))
        shown = self._dataset.kind.encode(given[..., : images.shape[-1]])
        return np.stack([shown, images, originals], 1).reshape(-1, *images.shape[1:])
