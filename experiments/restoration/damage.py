"""Destroyed pixels found by a network, and by filters: our decay, and that of augraphy.

Run `python experiments/restoration/damage.py WORKDIR` for the tables, `damage.json` and
`damage.png`; the run is one of configs/photographs_damage.py. Without `pip install augraphy` the
rows of that package are left out.
"""

import argparse
import contextlib
import functools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

from diffusion_jax.data import to_float, to_uint8
from diffusion_jax.data.sets.photographs import Patches
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.from_config.data import make_dataset
from diffusion_jax.metrics.detection import BINS, average_precision, counts, iou
from diffusion_jax.metrics.intervals import bootstrap
from diffusion_jax.restoration.decay import KINDS, Decay, RandomDecay, Window
from diffusion_jax.restoration.detector import Detector, lost
from diffusion_jax.run.trained import open_run
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.pictures import captioned
from diffusion_jax.types import Array

HERE = Path(__file__).parent
TONE = ("blur", "fading", "silvering")
DESTROY = tuple(name for name in KINDS if name not in TONE)
ZOOM, SEVERITY = 8.0, 0.8  # largest scale of the decay of windows; severity of whole pictures
LARGE = 256  # side of whole pictures
VISIBLE = 8  # of 255, a change by augraphy that counts as damage
THRESHOLDS, DILATE = (0.2, 0.35, 0.5, 0.65), (0, 1, 2)
REPEATS, CELL, SHOWN = 400, 128, 2
Method = Callable[[np.ndarray], np.ndarray]
"""Scores `[H, W]` in [0, 1] of a picture `[H, W, C]` in [-1, 1]."""


class Case(NamedTuple):
    """Damaged pictures, `[N, H, W, C]` in [-1, 1]."""

    image: np.ndarray
    clean: np.ndarray
    destroyed: np.ndarray  # bool `[N, H, W]`
    of: np.ndarray  # int `[N]`, the photograph


def windows(patches: Patches, per: int, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`per` random windows of each photograph, `[N, side, side, 3]`, and whose they are."""
    rng, found = np.random.default_rng(seed), []
    for pixels in patches.photographs:
        for _ in range(per):
            top, left = (rng.integers(0, size - side + 1) for size in pixels.shape[:2])
            found.append(to_float(pixels[top : top + side, left : left + side]))
    return np.stack(found), np.repeat(np.arange(len(patches.photographs)), per)


def of_kind(name: str) -> Callable[[Array, Array], Any]:
    """One kind of decay, always there, at severities from 0.3 and all scales."""

    def decay(x: Array, keys: Array) -> Any:
        draws = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), (4,)))(keys)
        window = Window(ZOOM ** draws[:, 0], draws[:, 1:3])
        return KINDS[name](x, keys, 0.3 + 0.7 * draws[:, 3], window)

    return decay


def decayed(decay: Callable[[Array, Array], Any], x: np.ndarray, of: np.ndarray) -> Case:
    """Pictures decayed by our suite."""
    made = jax.jit(decay)(jnp.asarray(x), sample_keys(make_key(0), jnp.arange(len(x))))
    return Case(np.asarray(made.image), x, np.asarray(made.destroyed[..., 0]) > 0, of)


def foreign() -> dict[str, Callable[[], Any]]:
    """Damage of paper by augraphy, by name; none if it is not installed."""
    try:
        import augraphy as a
    except ImportError:
        return {}
    lines = {"scribbles_type": "lines", "scribbles_size_range": (120, 200)}
    return {
        "folds": lambda: a.Folding(
            fold_noise=0.0, gradient_width=(0.05, 0.15), gradient_height=(0.005, 0.02)
        ),
        "stains": lambda: a.Stains(stains_blend_alpha=0.7),
        "lines": lambda: a.Scribbles(**lines, scribbles_count_range=(1, 3)),
        "dirt of a drum": lambda: a.DirtyDrum(),
        "dirt of a screen": lambda: a.DirtyScreen(),
    }


def by_augraphy(make: Callable[[], Any], x: np.ndarray, of: np.ndarray) -> Case:
    """Pictures damaged by it; what changed by more than `VISIBLE` is destroyed."""
    found = []
    for number, picture in enumerate(to_uint8(x)):
        made = None
        for attempt in range(20):  # some draws of its own parameters fail within augraphy
            seed = 100 * number + attempt
            random.seed(seed)
            np.random.seed(seed)
            with contextlib.suppress(Exception):
                made = np.asarray(make()(picture[..., ::-1].copy()))[..., ::-1]
            if made is not None and made.shape == picture.shape:
                break
        assert made is not None
        found.append(made)
    image = np.stack(found)
    change = np.abs(image.astype(int) - to_uint8(x)).max(-1)
    return Case(to_float(image), x, change > VISIBLE, of)


def median(x: np.ndarray) -> np.ndarray:
    """Distance from the median over 7 x 7 pixels, the largest of the channels."""
    found: np.ndarray = np.abs(x - ndimage.median_filter(x, (7, 7, 1))).max(-1) / 2
    return found


def top_hat(x: np.ndarray) -> np.ndarray:
    """Thin bright and dark parts: distance from the opening or the closing by 7 x 7 pixels."""
    size = (7, 7, 1)
    bright, dark = ndimage.white_tophat(x, size), ndimage.black_tophat(x, size)
    found: np.ndarray = np.maximum(bright, dark).max(-1) / 2
    return found


def scored(method: Method, case: Case) -> np.ndarray:
    """Scores `[N, H, W]` of all pictures."""
    return np.stack([method(picture) for picture in case.image])


def by_photograph(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Sums of `[N, ...]` over the pictures of each photograph."""
    return np.stack([values[of == number].sum(0) for number in np.unique(of)])


def figures(case: Case, scores: np.ndarray, threshold: float | None) -> dict[str, Any]:
    """Average precision and IoU, with intervals over photographs.

    Without a threshold IoU is at the best of all for these very pictures.
    """
    each = by_photograph(counts(scores, case.destroyed), case.of)
    if threshold is None:
        threshold = max(np.arange(1, BINS) / BINS, key=lambda at: np.nan_to_num(iou(each, at)))
    overlap = functools.partial(iou, threshold=threshold)
    return {
        "average_precision": list(bootstrap(average_precision, each, REPEATS)),
        "iou": list(bootstrap(overlap, each, REPEATS)),
        "threshold": float(threshold),
    }


def masks(case: Case, scores: np.ndarray) -> Iterator[dict[str, Any]]:
    """Recall, precision, and the share of the squared change that a mask leaves, for each mask."""
    change = ((case.image - case.clean) ** 2).sum(-1) * case.destroyed
    for threshold in THRESHOLDS:
        for dilate in DILATE:
            found = np.stack([lost(one, threshold, dilate) for one in scores])
            both = (found & case.destroyed, case.destroyed, found, change * ~found, change)
            sums = by_photograph(np.stack([a.sum((1, 2), float) for a in both], 1), case.of)
            ratios = {"recall": (0, 1), "precision": (0, 2), "left": (3, 4)}
            yield {"threshold": threshold, "dilate": dilate} | {
                name: list(bootstrap(functools.partial(_ratio, places), sums, REPEATS))
                for name, places in ratios.items()
            }


def _ratio(places: tuple[int, int], sums: np.ndarray) -> float:
    above, below = sums.sum(0)[list(places)]
    return float(above / below) if below else 0.0


def cases(patches: Patches, size: int, per: int, large: int) -> Iterator[tuple[str, Case]]:
    """All damaged pictures by name: windows of the network's `size`, and `large` ones."""
    x, of = windows(patches, per, size)
    for name in DESTROY:
        yield name, decayed(of_kind(name), x, of)
    yield "all kinds", decayed(RandomDecay(1.0, ZOOM), x, of)
    yield "tone only", decayed(RandomDecay(1.0, ZOOM, TONE), x, of)
    x, of = windows(patches, max(per // 8, 1), large, seed=1)
    yield "whole pictures", decayed(Decay(SEVERITY), x, of)
    for name, make in foreign().items():
        yield f"augraphy: {name}", by_augraphy(make, x, of)


def cell(picture: np.ndarray) -> np.ndarray:
    """A cell of the sheet, from `[H, W, 3]` in [-1, 1]."""
    made = Image.fromarray(to_uint8(picture))
    way = Image.Resampling.NEAREST if made.height < CELL else Image.Resampling.BOX
    return np.asarray(made.resize((CELL, CELL), way))


def shown(case: Case, scores: np.ndarray) -> list[np.ndarray]:
    """Cells of the pictures whose share of destroyed pixels is nearest to a fifth."""
    order = np.argsort(np.abs(case.destroyed.mean((1, 2)) - 0.2))
    cells = []
    for row in order[:SHOWN]:
        grey = [np.repeat(2.0 * a[row][..., None] - 1, 3, -1) for a in (case.destroyed, scores)]
        cells += [cell(one) for one in (case.image[row], *grey)]
    return cells


def measure(
    patches: Patches, network: Method, size: int, per: int, large: int = LARGE
) -> tuple[dict[str, Any], np.ndarray]:
    """All figures, and the sheet."""
    found: dict[str, Any] = {"cases": {}, "photographs": len(patches.photographs), "per": per}
    cells, names = [], []
    for name, case in cases(patches, size, per, large):
        scores, share = scored(network, case), float(case.destroyed.mean())
        row: dict[str, Any] = {"pictures": len(case.image), "destroyed": share}
        if name == "tone only":
            wrong = by_photograph((scores >= 0.5).mean((1, 2))[:, None], case.of) / per
            row["wrong"] = list(bootstrap(np.mean, wrong, REPEATS))
        else:
            row["network"] = figures(case, scores, 0.5)
            for filtered in (median, top_hat):
                row[filtered.__name__] = figures(case, scored(filtered, case), None)
        if name in ("all kinds", "whole pictures"):
            found[f"masks, {name}"] = list(masks(case, scores))
        found["cases"][name] = row
        cells += shown(case, scores)
        names.append(name)
        print(name, json.dumps(row), flush=True)
    return found, captioned(np.stack(cells), names, 3 * SHOWN)


def _cell_of(figure: list[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*figure)


def tables(found: dict[str, Any]) -> str:
    """The tables of the page, in Markdown."""
    ways = ("network", "median", "top_hat")
    titles = [f"{way.replace('_', ' ')}: {of}" for of in ("AP", "IoU") for way in ways]
    lines = [["damage", "destroyed", *titles], ["---"] * 8]
    for name, row in found["cases"].items():
        if "network" in row:
            each = [_cell_of(row[w][of]) for of in ("average_precision", "iou") for w in ways]
            lines.append([name, f"{row['destroyed']:.1%}", *each])
    for title in [key for key in found if key.startswith("masks")]:
        lines += [[], [title, "dilated by", "recall", "precision", "left"], ["---"] * 5]
        for row in found[title]:
            each = [_cell_of(row[of]) for of in ("recall", "precision", "left")]
            lines.append([str(row["threshold"]), str(row["dilate"]), *each])
    return "\n".join(f"| {' | '.join(line)} |" if line else "" for line in lines)


def main() -> None:
    """Writes the figures and the sheet beside this file, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir")
    parser.add_argument("--per", type=int, default=16, help="windows of each photograph")
    asked = parser.parse_args()
    model = open_run(asked.workdir)
    dataset = make_dataset(model.run.config)
    patches, odds = dataset.splits["heldout"].source, model.run.parts.task.damage
    assert isinstance(patches, Patches)
    assert odds is not None
    size = dataset.kind.shape[0]
    found, sheet = measure(patches, Detector(odds, model.params, size), size, asked.per)
    found["step"] = model.step
    (HERE / "damage.json").write_text(json.dumps(found, indent=1) + "\n")
    Image.fromarray(sheet).quantize(128).save(HERE / "damage.png", optimize=True)
    print(tables(found))


if __name__ == "__main__":
    main()
