"""Conditioning on labels."""

from collections.abc import Callable

import numpy as np


def as_cond(labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """Conditioning on labels `[N]`, if there are any."""
    return {} if labels is None else {"label": np.asarray(labels, np.int32)}


CondOf = Callable[[str, np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""`(split, rows [N], labels [N])` of items of a data set to their conditioning; the split is
"train" or "heldout"."""


def by_label(num_classes: int) -> CondOf:
    """Conditioning on labels alone, if there are classes."""
    return lambda split, rows, labels: as_cond(labels if num_classes else None)


def cycle_labels(spec: str, num_classes: int, index: np.ndarray) -> np.ndarray | None:
    """Labels of the samples with numbers `index`; None for data without classes.

    `spec` is "all" classes in turn, "none" (-1, unconditional), or a list such as "3,5" in turn.

    Raises:
        ValueError: a label is not one of the classes, or there are none.
    """
    if not num_classes:
        if spec not in ("all", "none"):
            raise ValueError(f"labels={spec!r}: these data have no classes; allowed are all, none")
        return None
    if spec == "none":
        return np.full(len(index), -1, np.int32)
    choices = list(range(num_classes))
    if spec != "all":
        choices = [int(part) if part.strip().isdecimal() else -1 for part in spec.split(",")]
    if not all(0 <= label < num_classes for label in choices):
        raise ValueError(
            f"labels={spec!r}: allowed are all, none, or classes from 0 to "
            f"{num_classes - 1} separated by commas"
        )
    return np.array(choices, np.int32)[index % len(choices)]


def proportional_labels(labels: np.ndarray, num_classes: int, num: int) -> np.ndarray:
    """`num` labels in the proportions of `labels` (largest remainders), int32, in class order."""
    share = num * np.bincount(labels, minlength=num_classes) / len(labels)
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share, kind="stable")[: num - counts.sum()]] += 1
    return np.repeat(np.arange(num_classes, dtype=np.int32), counts)
