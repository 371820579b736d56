"""How well a network finds the destroyed pixels of held-out pictures."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.evaluation.model import Evaluator, Model, Result, chosen, entry
from diffusion_jax.metrics.detection import average_precision, counts, iou
from diffusion_jax.metrics.intervals import bootstrap
from diffusion_jax.restoration.decay import DecayedImage
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Params

SHOWN = 16  # pictures on the sheet
SHEET = "damage.png"


@dataclasses.dataclass(frozen=True)
class DamageFound(Evaluator):
    """Average precision, and the overlap with the pixels that are more likely destroyed than not.

    Of the pixels of held-out pictures, decayed as in training.
    """

    odds: Callable[[Params, Array], Array]  # log odds `[B, H, W, 1]` of pictures `[B, H, W, C]`
    decay: Callable[[Array, Array], DecayedImage]
    num: int  # of pictures, at most
    repeats: int  # resamples for the intervals
    pictures = ((SHEET, "Decayed, destroyed, and the probability that is found, in rows of two"),)

    def __call__(self, model: Model) -> Result:
        """`average_precision` and `iou`, with intervals over pictures for this network."""
        x, index, _ = chosen(model, "heldout", self.num)

        @jax.jit
        def program(whole: Any, each: Any) -> tuple[Array, Array, Array]:
            (params, key), (x, index) = whole, each
            image, destroyed = self.decay(x, sample_keys(key, index))
            return image, destroyed, jax.nn.sigmoid(self.odds(params, image))

        whole = model.params, make_key(model.seed)
        made = in_batches(program, whole, (x, index), model.batch_size, "finding damage")
        image, destroyed, found = made
        self._show(model, image, destroyed, found)
        of = counts(found, destroyed)
        passport = {**model.passport, "destroyed": float(destroyed.mean())}
        figures: dict[str, Callable[[np.ndarray], float]] = {
            "average_precision": average_precision,
            "iou": iou,
        }
        return {
            name: entry(bootstrap(figure, of, self.repeats), len(of), passport)
            for name, figure in figures.items()
        }

    def _show(self, model: Model, image: Any, destroyed: Any, found: Any) -> None:
        """Saves the sheet of the first pictures."""
        shape = image[:SHOWN].shape
        cells = [
            image[:SHOWN],
            *(np.broadcast_to(2 * m[:SHOWN] - 1, shape) for m in (destroyed, found)),
        ]
        rows = np.stack(cells, 1).reshape(-1, *shape[1:])
        kind = model.dataset.kind
        model.show(SHEET, kind.sheet(kind.encode(rows), 6))
