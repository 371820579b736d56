"""Interface of evaluators: the model that they measure, and the entries of their results."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.generation.generator import Generator
from diffusion_jax.generation.labels import CondOf
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.pictures import save_png
from diffusion_jax.types import Params

Result = dict[str, dict[str, Any]]
"""`{"name": {"value", "low", "high", "n", "passport"}}`; for a metric that is left out the first
three are None, and `left_out` explains why."""
Chunk = tuple[np.ndarray, np.ndarray | None]
"""Items as stored `[n, ...]`, and their requested labels `[n]` or None."""

SPLITS = {"heldout": "held-out", "train": "training"}  # in words
LEAST = 2  # items that an interval of a mean needs


def entry(found: Sequence[float] | str, num: int, passport: Mapping[str, Any], **more: Any) -> Any:
    """An entry of a result.

    Args:
        found: `(value, low, high)`, or why the metric is left out. Values that are not finite are
            left out, too.
        num: of items.
        passport: of the result.
        more: fields of the passport of this entry alone.
    """
    if not isinstance(found, str) and not np.isfinite(found).all():
        found = "not finite"
    left_out = {"left_out": found} if isinstance(found, str) else {}
    values = (None, None, None) if isinstance(found, str) else tuple(found)
    own = {**dict(zip(("value", "low", "high"), values, strict=True)), "n": num, **left_out}
    return {**own, "passport": {**passport, **more}}


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model, as evaluators receive it."""

    dataset: Dataset  # that it was trained on
    generator: Generator | None  # None for networks that cannot sample
    params: Params  # of its network
    frozen: Mapping[str, Params]  # parameters of further networks, such as its codec
    cond_of: CondOf  # conditioning of items of the data set
    read: Callable[[Sequence[str]], Mapping[str, np.ndarray]]  # texts to conditioning
    # `(index [n], cond) -> items` as stored, with the seed of the evaluation.
    draw: Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray]
    samples: Callable[[], Iterable[Chunk]]  # to measure
    passport: Mapping[str, Any]  # how samples are made
    seed: int  # of all random numbers of the measurement
    batch_size: int  # items at a time
    folder: Path  # for images

    @property
    def draws(self) -> Generator:
        """The generator, for evaluators that need one."""
        assert self.generator is not None
        return self.generator

    def show(self, file: str, picture: np.ndarray, **about: Any) -> None:
        """Saves an image `[H, W, C]` in the folder, with the passport and the fields of `about`."""
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            save_png(self.folder / file, picture, {**self.passport, **about})

    def write(self, file: str, page: str) -> None:
        """Writes an HTML page, if it is not '', to the folder."""
        if page and is_main():
            write_whole(self.folder / file, page.encode())


def rows_of(model: Model, split: str, num: int) -> np.ndarray:
    """Rows `[n]` of up to `num` random items of a split, always the same."""
    return np.random.default_rng(model.seed).permutation(len(model.dataset.splits[split]))[:num]


def chosen(model: Model, split: str, num: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """The items in `rows_of`: as `x` `[n, ...]`, numbers `[n]`, conditioning."""
    rows = rows_of(model, split, num)
    items, labels = model.dataset.splits[split].gather(rows)
    index = np.arange(len(rows), dtype=np.int32)
    return model.dataset.kind.decode(items), index, model.cond_of(split, rows, labels)


def count(dataset: Dataset, split: str, num: int) -> tuple[str, int, int]:
    """Arguments of `too_few` for up to `num` items of a split: words, their number, `LEAST`."""
    what = f"{SPLITS[split]} {dataset.kind.noun}"
    return what, min(len(dataset.splits[split]), num), LEAST


class Evaluator:
    """One way to measure models."""

    # Files that it saves in the model's folder, with captions, for the report.
    pictures: Sequence[tuple[str, str]] = ()

    def __call__(self, model: Model) -> Result:
        """Metrics of a model."""
        raise NotImplementedError

    def of_data(self, passport: Mapping[str, Any]) -> Result:
        """Metrics of the data alone, independent of the model."""
        return {}
