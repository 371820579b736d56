"""A mix of two data sets: shares, texts, and what cannot be mixed."""

from collections import Counter

import numpy as np
import pytest

from diffusion_jax.data import (
    ArraySource,
    Captions,
    DataError,
    Dataset,
    Images,
    Split,
    mixed,
    train_batches,
)


def numbered(first: int, num: int, word: str, side: int = 1) -> Dataset:
    """Pictures that are their own numbers, with a text each."""
    pixels = np.arange(first, first + num, dtype=np.uint8).reshape(-1, 1, 1, 1)
    source = ArraySource(np.tile(pixels, (1, side, side, 1)), np.zeros(num, np.int32))
    texts = Captions.of([[f"{word} {n}"] for n in range(first, first + num)])
    splits = {"train": Split(source, texts), "heldout": Split(source, texts)}
    return Dataset(word, Images((side, side, 1)), splits, fingerprint=word)


@pytest.mark.parametrize(
    ("share", "own", "others"), [(0.5, 20, 20), (0.25, 60, 20), (0.9, 3, 27), (0.75, 7, 20)]
)
def test_an_epoch_has_every_item_and_the_share_of_each_set(
    share: float, own: int, others: int
) -> None:
    dataset = mixed(numbered(0, 3, "dog"), numbered(100, 20, "pet"), share)
    split = dataset.splits["train"]
    assert len(split) == own + others
    items, _ = split.gather(np.arange(len(split)))
    counts = Counter(items.ravel().tolist())
    assert sum(number for value, number in counts.items() if value < 100) == own
    assert set(counts) == {*range(3), *range(100, 120)}
    for part in ([0, 1, 2], range(100, 120)):
        found = [counts[value] for value in part]
        assert max(found) - min(found) <= 1
    assert len(dataset.splits["heldout"]) == 3


def test_pictures_keep_their_texts_in_any_order() -> None:
    dataset = mixed(numbered(0, 3, "dog"), numbered(100, 20, "pet"), 0.5)
    split = dataset.splits["train"]
    rows = np.random.default_rng(0).permutation(len(split))[:9]
    names = split.names(rows)
    for value, name in zip(split.gather(rows)[0].ravel(), names, strict=True):
        assert name == f"{'dog' if value < 100 else 'pet'} {value}"
    assert split.gather(np.array([39]))[0].item() >= 100  # of one set alone
    assert len({dataset.fingerprint, mixed(dataset, dataset, 0.5).fingerprint}) == 2


def test_batches_of_a_mix_have_both() -> None:
    dataset = mixed(numbered(0, 3, "dog"), numbered(100, 20, "pet"), 0.5)
    batches = train_batches(dataset, batch_size=40, seed=0, prefetch=0)
    x = next(batches)["x"].ravel()
    assert (x < 100).sum() == 20
    batches.close()


BARE = {"train": Split(numbered(0, 2, "pet").splits["train"].source)}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (numbered(0, 3, "pet", side=2), r"data\.mix\.dir: its items are 'images of 2x2x1'"),
        (
            Dataset(
                "bare",
                Images((1, 1, 1)),
                {"train": Split(numbered(0, 2, "").splits["train"].source)},
            ),
            r"data\.mix\.dir: its captions are False, and those of data\.dir True",
        ),
        (numbered(0, 0, "pet"), r"there are no training items in it"),
    ],
)
def test_sets_that_do_not_fit_are_not_mixed(second: Dataset, words: str) -> None:
    with pytest.raises(DataError, match=words):
        mixed(numbered(0, 3, "dog"), second, 0.5)
