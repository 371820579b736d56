"""The stage that samples."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from diffusion_jax.data import DataError, Dataset
from diffusion_jax.from_config.sampling import OPTIMISED
from diffusion_jax.generation.labels import as_cond
from diffusion_jax.report.passports import differences
from diffusion_jax.run.trained import Drawn, Run, Trained
from diffusion_jax.system import sounds
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.files import each_file, remove_tree, write_whole
from diffusion_jax.system.pictures import read_made_by, save_gif, save_png
from diffusion_jax.system.progress import stage

COLUMNS = 10
PASSPORTS = {".png": read_made_by, ".wav": sounds.read_made_by}
"""Readers of the passports of samples that are files of their own."""
TRIPLES = 4
"""Samples in a row if each is between two images."""


def _shown(model: Trained) -> int:
    """Maximum number of samples in training's grids and in the animation, in whole groups."""
    group = model.draws.guidance.group
    return max(model.run.parts.dataset.kind.shown // group, 1) * group


def draw_grid(model: Trained, path: Path) -> np.ndarray:
    """Makes the first samples, `Kind.shown` at most, saves them as a grid and returns it."""
    sample = model.run.config.sample
    index = sample.first_index + np.arange(min(sample.num_images, _shown(model)))
    cond = model.run.conditions.cond(index)
    drawn = model.drawn(sample.seed, index, cond)
    sheet = sheet_of(model.run, drawn.items, index, cond, weights_of([drawn]))
    path.parent.mkdir(parents=True, exist_ok=True)
    made_by = {**model.made_by(sample.seed), **model.run.span(index, cond)}
    if sample.grid == OPTIMISED:
        made_by["grid"] = "uniform()"  # a search for each of these would take too long
    if is_main():
        save_png(path, sheet, made_by)
    return sheet


def draw_sheet(model: Trained, path: Path) -> np.ndarray:
    """`draw_grid`, or for a task that draws no samples the sheet of what its network does."""
    sheet = model.run.parts.task.sheet
    if sheet is None:
        return draw_grid(model, path)
    picture = sheet(model.params)
    if is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(path, picture, model.made_by(model.run.config.sample.seed))
    return picture


def weights_of(parts: Sequence[Drawn]) -> np.ndarray | None:
    """The weights `[N]` of all samples, whose sum is 1; None if they have none."""
    found = [part.log_weights for part in parts if part.log_weights is not None]
    if not found:
        return None
    weights: np.ndarray = softmax(np.concatenate(found).astype(np.float64))
    return weights


def sheet_of(
    run: Run,
    items: np.ndarray,
    index: np.ndarray,
    cond: Mapping[str, np.ndarray],
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Samples number `index` as one image: with texts, one row of samples for each text.

    With weights `[N]` each sample is below its own.
    Texts that no training item has are red, if there are any and the data are present. A sample
    with an image condition is between that and the original.
    """
    conditions, dataset = run.conditions, run.parts.dataset
    if weights is not None:
        return dataset.kind.sheet(items, 1, [f"weight {weight:.2g}" for weight in weights])
    if conditions.given:
        around = conditions.around(index, cond["image"], items)
        return dataset.kind.sheet(around, 3 * TRIPLES)
    texts = conditions.texts
    if not texts:
        return dataset.kind.sheet(items, COLUMNS)
    number = index % len(texts)  # of each sample's text
    rows, counts = np.unique(number, return_counts=True)
    columns = int(np.max(counts))
    cells = np.full((len(rows), columns, *items.shape[1:]), dataset.kind.blank, items.dtype)
    for row, one, count in zip(cells, rows, counts, strict=True):
        row[:count] = items[number == one]
    words = [texts[one] for one in rows]
    try:
        captions = dataset.splits["train"].captions
        known = set(captions.texts if captions else ()) or set(words)
    except DataError as error:
        print(f"warning: texts that no training item has are not marked: {error}", file=sys.stderr)
        known = set(words)
    unseen = [text not in known for text in words]
    flat = cells.reshape(-1, *items.shape[1:])
    return dataset.kind.sheet(flat, columns, words, unseen)


def caption(run: Run, step: int) -> str:
    """Describes `grid.png` from its passport; '' if the file is missing."""
    found = read_made_by(run.workdir / "samples" / "grid.png")
    if found is None:
        return ""
    first, last = found["index"]
    index, conditions, dataset = np.arange(first, last + 1), run.conditions, run.parts.dataset
    labels = conditions.labels(index)
    made_by = {**run.made_by(step, run.config.sample.seed), **run.span(index, as_cond(labels))}
    both = {"the results": {"passport": made_by}, "this picture": {"passport": found}}
    if said := differences(both):
        return f"Samples {first} to {last}, of other settings than the results: {'; '.join(said)}"
    words = [f"Samples {first} to {last}"]
    if run.generator and run.generator.guidance.group > 1:
        words.append(f"in groups of {run.generator.guidance.group} that were denoised together")
    if conditions.given:
        words.append("each between what it was given and the original")
    elif conditions.texts:
        noun = dataset.kind.noun.removesuffix("s")
        words.append(f"a row for each text, in red where no training {noun} has it")
    elif labels is not None:
        words.append(_classes(labels, dataset))
    return ", ".join(words)


def _classes(labels: np.ndarray, dataset: Dataset) -> str:
    """The requested classes of samples on a sheet, in words."""
    asked = list(dict.fromkeys(labels.tolist()))
    if asked == [-1]:
        return "of no class"
    names = [dataset.class_names[label] for label in asked]
    if len(asked) == 1:
        return f"all of class {names[0]}"
    which = f"of {len(asked)} classes" if len(asked) > COLUMNS else f"of classes {', '.join(names)}"
    columns = all(len(set(labels[column::COLUMNS])) == 1 for column in range(COLUMNS))
    if dataset.kind.placed and columns and len(asked) == COLUMNS:
        return f"{which}, a column for each"
    return f"{which} in turn"


def sample(run: Run, again: bool) -> None:
    """Makes `sample.num_images` samples: single items, a grid, a strip and an animation."""
    folder, sample, kind = run.workdir / "samples", run.config.sample, run.parts.dataset.kind
    index = sample.first_index + np.arange(sample.num_images)
    cond = run.conditions.cond(index)
    made_by = run.made_by(run.step_to_use(), sample.seed)
    if not again and (folder / "grid.png").exists():
        if damaged := _damaged(folder):
            print(f"warning: {damaged} is missing or damaged: drawn again", file=sys.stderr)
        elif read_made_by(folder / "grid.png") == {**made_by, **run.span(index, cond)}:
            return
    model = run.trained()
    num_states = len(model.draws.times)
    if sample.strip > num_states and is_main():
        print(
            f"warning: sample.strip={sample.strip}: from noise to result there are {num_states} "
            f"states, as sample.steps={sample.steps}",
            file=sys.stderr,
        )
    strip = min(sample.strip, num_states)
    keep = (num_states - 1) // (min(max(strip, kind.states), num_states) - 1)
    shown = _shown(model)

    def part(rows: slice) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return index[rows], {name: value[rows] for name, value in cond.items()}

    with stage("sampling", len(index)):
        parts = [model.drawn(sample.seed, *part(slice(shown)), keep=keep)]
        if len(index) > shown:
            parts.append(model.drawn(sample.seed, *part(slice(shown, None))))
    if not is_main():
        return
    items, states = np.concatenate([part.items for part in parts]), parts[0].states
    weights = weights_of(parts)
    assert states is not None
    of_each = {"label": cond["label"].tolist() if "label" in cond else [None] * len(index)}
    if prompts := run.conditions.prompts(index):
        of_each["prompt"] = prompts
    if weights is not None:
        worth = 1 / np.sum(weights**2)
        of_each |= {"weight": weights.tolist(), "effective_size": [float(worth)] * len(index)}
    save_items(run, folder / "images", index, items, made_by, of_each)
    span = {**made_by, **run.span(index, cond)}
    texts = prompts or _class_names(cond.get("label", ()), run.parts.dataset)
    for name, page in kind.pages(items, texts, states[:, :COLUMNS], span).items():
        write_whole(folder / name, page.encode())
    states = states[np.linspace(0, len(states) - 1, strip).round().astype(int)]
    save_png(folder / "trajectory.png", kind.strip(states, COLUMNS), span)
    save_gif(folder / "denoise.gif", [kind.sheet(state, COLUMNS) for state in states])
    # Last: it marks the samples as complete.
    save_png(folder / "grid.png", sheet_of(run, items, index, cond, weights), span)
    print(f"{len(index)} samples of step {model.step} are in {folder}")
    if weights is not None:
        print(f"the samples are weighted, and worth {worth:.1f} of one weight")


def _class_names(labels: Iterable[int], dataset: Dataset) -> list[str]:
    """The class of each sample, '' for no class; empty for data without classes."""
    return [dataset.class_names[label] if label >= 0 else "" for label in labels]


def _damaged(folder: Path) -> Path | None:
    """The first file of the samples that is missing or damaged; None if there is none."""
    animation, images = folder / "denoise.gif", folder / "images"
    single = [path for end in PASSPORTS for path in sorted(images.glob(f"*{end}"))]
    files = [folder / "grid.png", folder / "trajectory.png", *single]
    passports = each_file(lambda path: PASSPORTS[path.suffix](path), files, "looking at samples")
    found = [path for path, passport in zip(files, passports, strict=True) if passport is None]
    found += [path for path in (animation, images) if not path.exists()]
    return next(iter(found), None)


def save_items(
    run: Run,
    folder: Path,
    index: np.ndarray,
    items: np.ndarray,
    made_by: Mapping[str, Any],
    of_each: Mapping[str, Sequence[Any]],
) -> None:
    """Writes single samples to a folder, whose former content is removed.

    The passport of each is `made_by`, its number, and its own values of `of_each`.
    """
    remove_tree(folder, missing_ok=True)
    folder.mkdir(parents=True)
    each = [
        {**made_by, "index": int(number), **{name: of_each[name][row] for name in of_each}}
        for row, number in enumerate(index)
    ]
    run.parts.dataset.kind.save(folder, index, items, each)
