"""What measures a trained model, and what it is given of that."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.generation.generator import Generator
from diffusion_jax.generation.labels import CondOf
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.pictures import save_png
from diffusion_jax.types import Params

Result = dict[str, dict[str, Any]]
"""`{"name": {"value", "low", "high", "n", "passport"}}`; of a figure that is left out the first
three are None, and `left_out` says why."""
Chunk = tuple[np.ndarray, np.ndarray | None]
"""Items as stored `[n, ...]`, and the labels `[n]` that were asked for or None."""

SPLITS = {"heldout": "held-out", "train": "training"}  # in words
LEAST = 2  # items whose mean has an interval


def entry(found: Sequence[float] | str, num: int, passport: Mapping[str, Any], **more: Any) -> Any:
    """One of a result, of `num` items.

    Args:
        found: `(value, low, high)`, or why the figure is left out. So are those that are not
            finite.
        num: of how many items.
        passport: of the result.
        more: of the passport of this one alone.
    """
    if not isinstance(found, str) and not np.isfinite(found).all():
        found = "not finite"
    left_out = {"left_out": found} if isinstance(found, str) else {}
    values = (None, None, None) if isinstance(found, str) else tuple(found)
    own = {**dict(zip(("value", "low", "high"), values, strict=True)), "n": num, **left_out}
    return {**own, "passport": {**passport, **more}}


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model as evaluators see it."""

    dataset: Dataset  # that it was trained on
    generator: Generator | None  # None for networks that draw nothing
    params: Params  # of its network
    frozen: Mapping[str, Params]  # parameters of further networks, of its codec among them
    cond_of: CondOf  # conditioning of items of the data set
    read: Callable[[Sequence[str]], Mapping[str, np.ndarray]]  # texts to conditioning
    # `(index [n], cond) -> items` as stored, with the seed of the evaluation.
    draw: Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray]
    samples: Callable[[], Iterable[Chunk]]  # those that are to be measured
    passport: Mapping[str, Any]  # how samples are made
    seed: int  # of all that is drawn to measure
    batch_size: int  # items at a time
    folder: Path  # for pictures

    @property
    def draws(self) -> Generator:
        """The generator, for evaluators that need one."""
        assert self.generator is not None
        return self.generator

    def show(self, file: str, picture: np.ndarray, **about: Any) -> None:
        """Leaves a picture `[H, W, C]` in the folder, with the passport and what it is `about`."""
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            save_png(self.folder / file, picture, {**self.passport, **about})


def chosen(model: Model, split: str, num: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Up to `num` items of a split, at random: as `x` `[n, ...]`, their places, conditioning."""
    source = model.dataset.splits[split]
    rows = np.random.default_rng(model.seed).permutation(len(source))[:num]
    items, labels = source.gather(rows)
    index = np.arange(len(rows), dtype=np.int32)
    return model.dataset.kind.decode(items), index, model.cond_of(split, rows, labels)


def count(dataset: Dataset, split: str, num: int) -> tuple[str, int, int]:
    """Of items of a split, up to `num`: what they are, how many, and `LEAST`; for `too_few`."""
    what = f"{SPLITS[split]} {dataset.kind.noun}"
    return what, min(len(dataset.splits[split]), num), LEAST


class Evaluator:
    """One way to measure models."""

    # Files that it leaves in the model's folder, with a caption each, for the report.
    pictures: Sequence[tuple[str, str]] = ()

    def __call__(self, model: Model) -> Result:
        """What it finds of a model."""
        raise NotImplementedError

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """What it finds of the data alone, whatever the model."""
        return {}
