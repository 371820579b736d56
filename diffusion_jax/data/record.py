"""A run's record of its data: to detect changes, and to sample without the data."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from diffusion_jax.data.dataset import Dataset, Split
from diffusion_jax.data.images import Images
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.levels import Levels
from diffusion_jax.data.sets.points import Points
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.tokens import Tokens

KINDS: dict[str, type[Kind]] = {kind.noun: kind for kind in (Images, Points, Sound, Tokens, Levels)}
NAMED = 5  # classes named in a sentence, at most


@dataclasses.dataclass(frozen=True)
class Record:
    """Properties of the data when a training began."""

    name: str  # as requested
    noun: str  # of the kind
    shape: tuple[int, ...]  # of an item
    class_names: tuple[str, ...]
    captioned: bool
    sizes: Mapping[str, int]  # number of items by split
    fingerprint: str
    # other fields of the kind, such as the pieces of its vocabulary; values can be JSON
    further: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> "Record":
        """The record of a data set."""
        kind, sizes = dataset.kind, {name: len(split) for name, split in dataset.splits.items()}
        names = (field.name for field in dataclasses.fields(kind) if field.name != "shape")
        further = {name: getattr(kind, name) for name in names}
        return cls(
            *(dataset.name, kind.noun, kind.shape, dataset.class_names, dataset.captioned),
            *(sizes, dataset.fingerprint, further),
        )

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> "Record":
        """The record from `saved`, its `dataclasses.asdict`, from JSON.

        Raises:
            KeyError, TypeError: `saved` is not one.
        """
        tuples = {name: tuple(saved[name]) for name in ("shape", "class_names")}
        further = {name: _hashable(value) for name, value in saved.get("further", {}).items()}
        found = cls(**{**saved, **tuples, "further": further})
        _ = found.kind  # raises for an unknown one
        return found

    @property
    def kind(self) -> Kind:
        """The kind of the items."""
        return KINDS[self.noun](self.shape, **self.further)

    def fits(self, other: "Record") -> bool:
        """Whether a network for one fits the other, by kind and number of classes."""
        mine, theirs = ((r.kind, len(r.class_names)) for r in (self, other))
        return mine == theirs

    def changes(self, now: "Record") -> list[str]:
        """A phrase for each difference of the data `now`."""
        phrases = []
        if (self.noun, self.shape) != (now.noun, now.shape):
            phrases.append(f"{now.kind.words} ({self.kind.words} before)")
        elif self.further != now.further:
            phrases.append(f"{now.kind.words} with other {' and '.join(now.further)}")
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


def _hashable(value: Any) -> Any:
    """A value from JSON, with tuples for lists."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True, eq=False)
class KeptDataset(Dataset):
    """A data set that is loaded when an item is read: most networks sample without any."""

    captioned: bool = False


def kept_dataset(record: Record, load: Callable[[], Dataset]) -> KeptDataset:
    """A data set from its record; `load` loads its items when one is read."""
    splits = _Splits(load)
    about = record.name, record.kind, splits, record.class_names
    return KeptDataset(*about, fingerprint=record.fingerprint, captioned=record.captioned)


class _Splits(Mapping[str, Split]):
    """The splits of the data set that `load` returns."""

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
