"""What a run keeps of its data: to tell whether they have changed, and to draw without them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from diffusion_jax.data.dataset import Dataset, Split
from diffusion_jax.data.images import Images
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.sets.points import Points

KINDS: dict[str, type[Kind]] = {kind.noun: kind for kind in (Images, Points)}
NAMED = 5  # classes at most that a sentence names


@dataclasses.dataclass(frozen=True)
class Record:
    """Data as they were when a training began."""

    name: str  # as they were asked for
    noun: str  # of the kind
    shape: tuple[int, ...]  # of an item
    class_names: tuple[str, ...]
    captioned: bool
    sizes: Mapping[str, int]  # number of items by split
    fingerprint: str

    @classmethod
    def of(cls, dataset: Dataset) -> "Record":
        """That of a data set."""
        kind, sizes = dataset.kind, {name: len(split) for name, split in dataset.splits.items()}
        return cls(
            *(dataset.name, kind.noun, kind.shape, dataset.class_names, dataset.captioned),
            *(sizes, dataset.fingerprint),
        )

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> "Record":
        """That of which `saved` is `dataclasses.asdict`, from JSON.

        Raises:
            KeyError, TypeError: it is not.
        """
        tuples = {name: tuple(saved[name]) for name in ("shape", "class_names")}
        found = cls(**{**saved, **tuples})
        _ = found.kind  # which is one that there is
        return found

    @property
    def kind(self) -> Kind:
        """What an item is."""
        return KINDS[self.noun](self.shape)

    def fits(self, other: "Record") -> bool:
        """Whether a network for one is, by its shapes, a network for the other."""
        mine, theirs = ((r.noun, r.shape, len(r.class_names)) for r in (self, other))
        return mine == theirs

    def changes(self, now: "Record") -> list[str]:
        """In which ways the data are others `now`, a phrase for each."""
        phrases = []
        if (self.noun, self.shape) != (now.noun, now.shape):
            phrases.append(f"{now.kind.words} ({self.kind.words} before)")
        for name, mine, theirs in (("new", now, self), ("gone", self, now)):
            if names := [n for n in mine.class_names if n not in theirs.class_names]:
                which = ", ".join(map(repr, names[:NAMED])) + ", ..." * (len(names) > NAMED)
                phrases.append(f"{name}: {'class' if len(names) == 1 else 'classes'} {which}")
        if self.captioned != now.captioned:
            phrases.append(f"{'new' if now.captioned else 'gone'}: captions")
        for split in dict.fromkeys((*self.sizes, *now.sizes)):
            was, number = (record.sizes.get(split, 0) for record in (self, now))
            if was != number:
                phrases.append(f"{number:,} {split} {now.noun} ({was:,} before)")
        if not phrases and self.fingerprint != now.fingerprint:
            phrases.append(f"as many {self.noun} as before, with other contents or names")
        return phrases


@dataclasses.dataclass(frozen=True, eq=False)
class KeptDataset(Dataset):
    """Data that are loaded when an item is asked for: to draw, most networks need none."""

    captioned: bool = False


def kept_dataset(record: Record, load: Callable[[], Dataset]) -> KeptDataset:
    """A data set as a record has it, whose items `load` gives when they are asked for."""
    splits = _Splits(load)
    about = record.name, record.kind, splits, record.class_names
    return KeptDataset(*about, fingerprint=record.fingerprint, captioned=record.captioned)


class _Splits(Mapping[str, Split]):
    """The splits of what `load` gives."""

    def __init__(self, load: Callable[[], Dataset]) -> None:
        self._load = load

    @functools.cached_property
    def _loaded(self) -> Mapping[str, Split]:
        return self._load().splits

    def __getitem__(self, name: str) -> Split:
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)
