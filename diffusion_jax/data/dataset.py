"""A data set: items of one kind, in splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffusion_jax.data.captions import Captions
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.sources import ArraySource, Items, Source, read_all
from diffusion_jax.system.arguments import checked

CUTS = "windows", "padded", "shots"
"""Ways to make items of recordings."""
NO_CAPTIONS = "none"
"""The `caption_key` for no captions."""


@dataclass(frozen=True)
@checked(
    image_size="[0, inf)",
    heldout_fraction="[0, 1)",
    channels=(0, 1, 3),
    length="[0, inf)",
    tokenizer=("characters", "bytes", "bpe"),
    vocabulary="[257, inf)",
    rate="[0, inf)",
    loudness="(-inf, 0]",
    cut=("", *CUTS),
)
class Options:
    """The requested data set, and how to read it."""

    # `digits`, `fashion_mnist`, `emoji`, `photographs`, points, `folder`, `huggingface`, or any
    # image set of TFDS, as `set[/config][:version]`; of tokens `hmm`, `sotu`, `text` and
    # `digits_tokens`; of sounds `recordings`, `drums`, `letters`, `prompts` and `music`; `none` is
    # a set without items, for models that were trained elsewhere
    name: str
    # for `folder`, the folder of images, for `recordings` that of sounds; for `huggingface`, a
    # folder or the name of a set on the hub, `owner/set[:config]`; for `text`, a text file or a
    # folder of them; else the folder of prepared sets, '' being TFDS's default
    data_dir: str = ""
    # folder of manually downloaded files, for TFDS sets that need them, for `fashion_mnist`, for
    # more styles of `emoji`, for the packages of `photographs`, of sounds and that of `sotu`, which
    # may be packed; '' is none
    manual_dir: str = ""
    # side in pixels to which images are resized (shorter side, antialiased) and cropped (centre);
    # 0: as stored, all of one size. `emoji` are rendered at this side, 0 being 32; of `photographs`
    # it is the side of the patches, 0 being 64.
    image_size: int = 0
    # split (name or slice, `train[:90%]`), or sub-folder; for `folder` and `huggingface` other
    # usual names are found instead of these defaults
    train_split: str = "train"
    heldout_split: str = "test"
    heldout_fraction: float = 0.1  # in [0, 1); held out if there is no such split
    # field of the captions in a folder's metadata or a set; '' finds the usual names, 'none'
    # ignores captions
    caption_key: str = ""
    image_key: str = ""  # for `huggingface`, the column of the images; '' finds the usual names
    label_key: str = ""  # and that of the classes; 'none' ignores them
    # of images in files and tables: 1 is grey, 3 colour; 0: 1 if all of them are grey, else 3. Of
    # sounds: 1 mixes their channels; 0: as stored
    channels: int = 0
    # tokens of a window of a text; 0: 256, and 64 for `hmm`. Of sounds its samples; 0: 16,384
    length: int = 0
    # tokens of `sotu` and `text`: `characters` of the training texts, their `bytes` in UTF-8, or
    # `bpe`, byte-pair encoding trained on them
    tokenizer: str = "characters"
    vocabulary: int = 1024  # number of tokens of `bpe`, of which 256 are the single bytes
    # of sounds: to so many Hz they are resampled; 0: as stored, all at one rate, and 16,000 for
    # sets of packages
    rate: int = 0
    # to this root mean square, in dB below full scale, each whole recording is brought; its gain is
    # less where it would exceed -1 dB; 0: as recorded
    loudness: float = 0.0
    # `windows` of recordings, none shorter; `padded`: shorter ones go on with silence; `shots`: the
    # beginning of each, without the silence before it; '' is the usual one of a set
    cut: str = ""
    shape: tuple[int, ...] = ()  # of the pictures of `none`: height, width, channels


@dataclass(frozen=True, eq=False)
class Split:
    """Items of one split, with their texts if there are any."""

    source: Source  # random access to them
    captions: Captions | None = None  # their texts; None for sets without
    # its items mirrored, of a kind that cannot mirror them; None for all others
    mirrored: Source | None = None

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        return self.source.gather(rows, draws)

    def names(self, rows: np.ndarray) -> list[str]:
        """The plain name of each of the items `rows`, for sets with captions."""
        assert self.captions is not None
        return [self.captions.texts[number] for number in self.captions.first(rows)]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with training and held-out items."""

    name: str  # as requested
    kind: Kind  # of its items
    splits: Mapping[str, Split]  # "train", and "heldout", never trained on, which a folder may lack
    class_names: tuple[str, ...] = ()  # empty for sets without classes
    skipped: tuple[str, ...] = ()  # relative paths of files that could not be read
    # identifies the data, as key of caches: a hash of the files' content, wherever they are, and of
    # the captions
    fingerprint: str = ""
    # sentences on how the data were read where there was a choice, and on items that are left out
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for sets without."""
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
    """A data set without items, such as one that is only described; captions are empty, if any."""
    none = ArraySource(np.empty((0, *kind.shape), kind.stored), np.empty(0, np.int32))
    split = Split(none, Captions.of([]) if captioned else None)
    return Dataset(name, kind, {"train": split, "heldout": split}, class_names)
