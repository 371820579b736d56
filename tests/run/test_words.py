"""Captions of images match their prompts and labels."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffusion_jax.data import Images
from diffusion_jax.data.sets.points import Points
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.generation.conditions import Asked, Conditions
from diffusion_jax.generation.labels import cycle_labels
from diffusion_jax.run import sampling
from diffusion_jax.run.trained import Run
from diffusion_jax.system.pictures import save_png
from tests.runs import captioned_dataset, random_dataset, tiny

PROMPTS = ("a grey square", "white", "black")


def made_run(dataset: Any, workdir: Path = Path(), group: int = 1, **asked: Any) -> Any:
    """All of a run that words are made of."""
    towards = (lambda texts: np.zeros((len(texts), 1))) if asked.get("prompts") else None
    asked = {"labels": "all", **asked}
    run = SimpleNamespace(
        config=tiny(sample__labels=asked["labels"]),
        workdir=workdir,
        parts=SimpleNamespace(dataset=dataset),
        conditions=Conditions(dataset, None, None, towards, Asked(**asked), 8),
        generator=SimpleNamespace(guidance=SimpleNamespace(group=group)),
        made_by=lambda step, seed: {"checkpoint": step, "seed": seed, "steps": 4},
    )
    run.span = lambda index, cond: Run.span(run, index, cond)
    return run


@pytest.mark.parametrize(
    ("first", "num", "rows"),
    [
        (0, 3, [[0], [1], [2]]),
        (1, 3, [[3], [1], [2]]),
        (2, 6, [[3, 6], [4, 7], [2, 5]]),
        (0, 5, [[0, 3], [1, 4], [2, None]]),
        (4, 1, [[4]]),
        (4, 2, [[4], [5]]),
    ],
)
def test_a_text_stands_beside_what_was_asked_by_it(
    first: int, num: int, rows: list[list[int | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the numbers of the samples, all of which are shown; places left over are white."""
    shown: dict[str, Any] = {}

    def sheet(self: Images, items: np.ndarray, columns: int, texts: Any, marked: Any) -> None:
        numbers = [None if i == 255 else int(i) for i in items[:, 0, 0, 0]]
        shown["rows"] = [numbers[i : i + columns] for i in range(0, len(numbers), columns)]
        shown["texts"], shown["marked"] = texts, marked

    monkeypatch.setattr(Images, "sheet", sheet)
    run, index = made_run(captioned_dataset(), prompts=PROMPTS), first + np.arange(num)
    items = np.broadcast_to(index[:, None, None, None], (num, 8, 8, 1)).astype(np.uint8)
    sampling.sheet_of(run, items, index, {})
    assert shown["rows"] == rows
    texts = [PROMPTS[row[0] % 3] for row in rows]
    assert shown["texts"] == texts == run.conditions.prompts(np.array([row[0] for row in rows]))
    assert shown["marked"] == [text == "a grey square" for text in texts]


@pytest.mark.parametrize(
    ("classes", "asked", "first", "says"),
    [
        (0, "all", 0, "Samples 0 to 11"),
        (0, "none", 0, "Samples 0 to 11"),
        (3, "all", 5, "Samples 5 to 16, of classes 2, 0, 1 in turn"),
        (10, "all", 0, f"Samples 0 to 11, of classes {', '.join('0123456789')}, a column for each"),
        (10, "all", 10, f"Samples 10 to 21, of classes {', '.join('0123456789')}, a column for e"),
        (10, "none", 0, "Samples 0 to 11, of no class"),
        (10, "3", 0, "Samples 0 to 11, all of class 3"),
        (10, "3,5", 1, "Samples 1 to 12, of classes 5, 3 in turn"),
        (12, "all", 0, "Samples 0 to 11, of 12 classes in turn"),
    ],
)
def test_a_page_says_which_classes_are_seen(
    classes: int, asked: str, first: int, says: str, tmp_path: Path
) -> None:
    run = made_run(random_dataset(num_classes=classes or 1), tmp_path, labels=asked)
    if not classes:
        run = made_run(
            dataclasses.replace(run.parts.dataset, class_names=()), tmp_path, labels=asked
        )
    assert sampling.caption(run, 6) == ""
    index = first + np.arange(12)
    (tmp_path / "samples").mkdir()
    path, span = tmp_path / "samples" / "grid.png", run.span(index, run.conditions.cond(index))
    save_png(path, np.zeros((4, 4, 1), np.uint8), {**run.made_by(6, 0), **span})
    assert sampling.caption(run, 6).startswith(says)
    assert ("labels" in span) == (classes > 0)
    # The picture may be older than the results.
    assert sampling.caption(run, 7) == (
        f"Samples {first} to {first + 11}, of other settings than the results: checkpoint differs: "
        "7 in the results; 6 in this picture"
    )


def test_a_page_says_which_texts_and_groups_are_seen(tmp_path: Path) -> None:
    run = made_run(captioned_dataset(), tmp_path, group=4, prompts=PROMPTS)
    (tmp_path / "samples").mkdir()
    made_by = {**run.made_by(6, 0), **run.span(np.arange(8), {})}
    save_png(tmp_path / "samples" / "grid.png", np.zeros((4, 4, 1), np.uint8), made_by)
    assert sampling.caption(run, 6) == (
        "Samples 0 to 7, in groups of 4 that were denoised together, a row for each text, in red "
        "where no training image has it"
    )


def test_points_stand_neither_above_nor_below(tmp_path: Path) -> None:
    said = []
    for kind in (Points((2,)), Images((8, 8, 1))):
        dataset = random_dataset(kind.shape)
        dataset = dataclasses.replace(dataset, kind=kind)
        ((_, words),) = Distances(dataset, "none", 2, tmp_path).pictures
        said.append(words)
    assert said == [
        "The samples nearest to a training item and those training items",
        "The samples nearest to a training item (above), and those training items (below)",
    ]


@pytest.mark.parametrize("asked", ["3", "3,5", "cat"])
def test_classes_are_not_asked_of_data_without_them(asked: str) -> None:
    with pytest.raises(ValueError, match=f"labels='{asked}': these data have no classes; allowed"):
        cycle_labels(asked, 0, np.arange(3))
