"""A data set: items of one kind, in splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.sources import ArraySource, Items, Source, read_all
from diffusion_jax.system.arguments import checked

NO_CAPTIONS = "none"
"""The `caption_key` of those who want none."""


@dataclass(frozen=True)
@checked(image_size="[0, inf)", heldout_fraction="[0, 1)", channels=(0, 1, 3))
class Options:
    """Which data set is asked for, and how it is read."""

    # `digits`, `fashion_mnist`, `emoji`, points, `folder`, `huggingface`, or any image set of TFDS,
    # as `set[/config][:version]`
    name: str
    # for `folder`, the folder of images; for `huggingface`, a folder or the name of a set on the
    # hub, `owner/set[:config]`; else where prepared sets are kept, '' being TFDS's default
    data_dir: str = ""
    # folder of files that the user fetched, for TFDS sets that ask for them, for `fashion_mnist`
    # and for more styles of `emoji`; '' is none
    manual_dir: str = ""
    # side in pixels to which images are resized (shorter side, antialiased) and cropped (centre); 0
    # keeps them as stored, and they must be alike. `emoji` are drawn at this side, 0 being 32.
    image_size: int = 0
    # split (name or slice, `train[:90%]`), or sub-folder; those of `folder` and `huggingface` may
    # have another of the usual names instead of these
    train_split: str = "train"
    heldout_split: str = "test"
    heldout_fraction: float = 0.1  # in [0, 1); what is held out where there is no such split
    # where a folder's metadata or a set has its captions; '' finds the usual names, 'none' has them
    # left alone
    caption_key: str = ""
    image_key: str = ""  # for `huggingface`, the column of the images; '' finds the usual names
    label_key: str = ""  # and that of the classes; 'none' has them left alone
    channels: int = (
        0  # of images in files and tables: 1 is grey, 3 colour; 0: 1 if all of them are grey
    )


@dataclass(frozen=True, eq=False)
class Split:
    """Items that belong together."""

    source: Source  # random access to them
    captions: Captions | None = None  # their texts; None for sets without

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        return self.source.gather(rows, draws)

    def names(self, rows: np.ndarray) -> list[str]:
        """The plainest text of each of the items `rows`, of sets with captions."""
        assert self.captions is not None
        return [self.captions.texts[number] for number in self.captions.first(rows)]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with the items to train on and those held out."""

    name: str  # as it was asked for
    kind: Kind  # of its items
    splits: Mapping[str, Split]  # "train", and "heldout", never trained on, which a folder may lack
    class_names: tuple[str, ...] = ()  # empty for sets without classes
    skipped: tuple[str, ...] = ()  # relative paths of files that could not be read
    # tells this data from any other, to key caches of what was computed from it: a hash of what the
    # files are, wherever they lie, and of the captions
    fingerprint: str = ""
    # a sentence each on how the data were taken, where another way was as likely, and on what of
    # them is left out
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """0 for sets without classes."""
        return len(self.class_names)

    @property
    def captioned(self) -> bool:
        """Whether its items have texts."""
        return self.splits["train"].captions is not None

    def arrays(self, split: str, limit: int | None = None) -> Items:
        """The first `limit` items (all if None) as stored [N, *shape], and labels int32 [N]."""
        source = self.splits[split].source
        count = len(source) if limit is None else min(limit, len(source))
        held = source if isinstance(source, ArraySource) else read_all(source, self.kind, count)
        return held.items[:count], held.labels[:count]


def empty_dataset(name: str, kind: Kind, class_names: tuple[str, ...], captioned: bool) -> Dataset:
    """A data set of which only that much is known; its captions are empty, if it has any."""
    none = ArraySource(np.empty((0, *kind.shape), kind.stored), np.empty(0, np.int32))
    split = Split(none, Captions.of([]) if captioned else None)
    return Dataset(name, kind, {"train": split, "heldout": split}, class_names)
