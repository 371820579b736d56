"""Draws sounds of trained networks, and measures those and other ones by outside judges.

    PYTHONPATH=. python experiments/sound/generated.py --root sounds --draw ours=runs/drums
    PYTHONPATH=. python experiments/sound/generated.py --root sounds --coded coded=runs/drums
    PYTHONPATH=. python experiments/sound/generated.py --root sounds --set drums --measure
    PYTHONPATH=. python experiments/sound/generated.py --evaluated music=runs/music
    PYTHONPATH=. python experiments/sound/generated.py --table

Sounds are `OUT/drums/ours.npz`, figures are added to `generated.json` beside this file; those of
`--evaluated` are what `--mode evaluate` of `launch.py` left in a run. See generated.md.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from configs import drums, letters
from diffusion_jax.data import Dataset
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.evaluation.extractor import get_extractor
from diffusion_jax.evaluation.model import Evaluator, Model, Result
from diffusion_jax.evaluation.sound_extractor import NAME as MEL
from diffusion_jax.evaluation.sound_extractor import mel_statistics
from diffusion_jax.evaluation.sound_pitch import Pitches
from diffusion_jax.from_config.data import make_dataset
from diffusion_jax.generation.labels import proportional_labels
from diffusion_jax.run import open_run
from diffusion_jax.system.runtime import cache_dir
from experiments.restoration.report import table

SETS = {"drums": drums, "letters": letters}
"""Sounds by class, which are drawn and measured here; other sets have been evaluated."""
FILE = Path(__file__).with_name("generated.json")
FLOOR, HELDOUT = "held-out sounds", "_heldout"
REPEATS, DIGITS = 200, 4
HEADS = {
    "accuracy_{}": ("class as asked for", "{:.0%}"),
    "frechet_{}": ("Frechet distance", "{:.1f}"),
    "fd_mel_statistics": ("Frechet distance in mel statistics", "{:.1f}"),
    "precision_{}": ("precision", "{:.0%}"),
    "recall_{}": ("recall", "{:.0%}"),
    "nearest_training_distance": ("nearest training sound", "{:.1f}"),
    "memorised_share": ("too near to one", "{:.0%}"),
    "word_error": ("word errors", "{:.0%}"),
    "pitch_voiced": ("frames with a pitch", "{:.0%}"),
    "pitch_median": ("median pitch, Hz", "{:.0f}"),
}
"""Of a figure: its name in tables, and how it is written."""


def dataset_of(name: str, root: Path) -> Dataset:
    """The sounds that the config of this name is trained on."""
    config = SETS[name].get_config()
    config.data.manual_dir = str(root)
    return make_dataset(config)


def asked_for(dataset: Dataset, num: int) -> np.ndarray:
    """Classes `[num]` in the proportions of the training data."""
    return proportional_labels(dataset.arrays("train")[1], dataset.num_classes, num)


def save(out: Path, name: str, method: str, items: np.ndarray, labels: np.ndarray) -> Path:
    """Writes sounds `[N, T, 1]`, int16, and the classes asked for."""
    path = out / name / f"{method}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, items=items, labels=labels)
    return path


def judges(dataset: Dataset) -> list[Evaluator]:
    """By the data set's classifier and by statistics of mel bands, and by the pitch."""
    cache = cache_dir()
    extractors = get_extractor(dataset, cache / "extractors", print), mel_statistics(dataset.kind)
    return [
        *(Distances(dataset, each, REPEATS, cache / "features") for each in extractors),
        Pitches(dataset, len(dataset.splits["heldout"]), REPEATS),
    ]


def drawn(dataset: Dataset, items: np.ndarray, labels: np.ndarray, folder: Path) -> Model:
    """Sounds, as evaluators take them; `folder` gets the nearest pairs, to listen to."""
    return Model(
        dataset=dataset,
        generator=None,
        params={},
        frozen={},
        cond_of=lambda *_: {},
        read=lambda _: {},
        draw=lambda *_: items,
        samples=lambda: [(items, labels)],
        passport={},
        seed=0,
        batch_size=len(items),
        folder=folder,
    )


def coded(workdir: str) -> tuple[np.ndarray, np.ndarray]:
    """Held-out sounds as a run's codec gives them back, and their classes."""
    parts = open_run(workdir).run.parts
    items, labels = parts.dataset.arrays("heldout")
    kind, codec = parts.dataset.kind, parts.generator.codec
    x_0 = codec.encode(
        {}, kind.decode(items), jnp.asarray(labels)
    )  # no codec of sound draws anything
    return kind.encode(np.asarray(codec.decode({}, x_0))), labels


def evaluated(workdir: Path) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The figures of a run's samples, and those of held-out sounds."""
    found = json.loads((workdir / "result.json").read_text(encoding="utf-8"))
    parts: tuple[Result, Result] = {}, {}
    for name, each in found.items():
        if not name.startswith("denoising"):
            parts[name.endswith(HELDOUT)][name] = each
    return kept([parts[0]]), kept([parts[1]])


def kept(found: Iterable[Result]) -> dict[str, list[float]]:
    """Value, low and high of each figure, and the number of sounds."""
    return {
        name.removesuffix(HELDOUT): [
            *(round(each[key], DIGITS) for key in ("value", "low", "high")),
            each["n"],
        ]
        for result in found
        for name, each in result.items()
        if each["value"] is not None
    }


def dataset_parser(words: str | None) -> argparse.ArgumentParser:
    """Options that name a set of sounds and where they are."""
    parser = argparse.ArgumentParser(
        description=words, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("sounds"), help="of unpacked packages")
    parser.add_argument("--set", choices=[*SETS], default="drums")
    parser.add_argument("--out", type=Path, default=Path("runs/generated"))
    return parser


def tables(result: dict[str, Any]) -> list[str]:
    """A table for each set: a row for each method, the last one of held-out sounds."""
    lines: list[str] = []
    for name, methods in result.items():
        floor = methods[FLOOR]
        rows = {method: each for method, each in methods.items() if method != FLOOR}
        rows[FLOOR] = floor
        judge = next(each for each in (f"{name}_cnn", MEL) if f"precision_{each}" in floor)
        heads = {
            key.format(judge): words for key, words in HEADS.items() if key.format(judge) in floor
        }
        lines += [f"`{name}`:", ""]
        lines += table(
            ["", *(head for head, _ in heads.values())],
            [
                [method, *(_written(figures.get(key), form) for key, (_, form) in heads.items())]
                for method, figures in rows.items()
            ],
        )
        lines.append("")
    return lines


def _written(found: list[float] | None, form: str) -> str:
    if found is None:
        return ""
    value, low, high = (form.format(number) for number in found[:3])
    return f"{value} ({low} to {high})"


def main() -> None:
    """Draws, measures, or prints the tables."""
    parser = dataset_parser(__doc__)
    parser.add_argument("--draw", metavar="METHOD=WORKDIR", help="a run of ours to draw from")
    parser.add_argument("--coded", metavar="METHOD=WORKDIR", help="held-out sounds, by its codec")
    parser.add_argument("--num", type=int, default=512, help="of sounds to draw")
    parser.add_argument("--guidance", type=float, help="scale; that of the config by default")
    parser.add_argument("--measure", action="store_true", help="all sounds that were drawn")
    parser.add_argument(
        "--evaluated", metavar="SET=WORKDIR", help="a run of ours that was evaluated"
    )
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    result = json.loads(options.results.read_text()) if options.results.exists() else {}
    if options.draw:
        method, workdir = options.draw.split("=", 1)
        own = {} if options.guidance is None else {"guidance_scale": options.guidance}
        trained = open_run(workdir, **own)
        labels = asked_for(trained.run.parts.dataset, options.num)
        items = trained.draw(len(labels), labels=labels.tolist())
        print(save(options.out, options.set, method, items, labels))
    if options.coded:
        method, workdir = options.coded.split("=", 1)
        print(save(options.out, options.set, method, *coded(workdir)))
    if options.measure:
        dataset = dataset_of(options.set, options.root)
        measures, methods = judges(dataset), result.setdefault(options.set, {})
        methods[FLOOR] = kept(measure.of_data({}) for measure in measures)
        for path in sorted((options.out / options.set).glob("*.npz")):
            with np.load(path) as found:
                model = drawn(dataset, found["items"], found["labels"], path.with_suffix(""))
            methods[path.stem] = kept(measure(model) for measure in measures)
    if options.evaluated:
        name, workdir = options.evaluated.split("=", 1)
        ours, floor = evaluated(Path(workdir))
        result.setdefault(name, {}).update({"ours": ours, FLOOR: floor})
    if options.measure or options.evaluated:
        options.results.write_text(json.dumps(result, indent=1) + "\n")
    if options.table:
        print("\n".join(tables(result)))


if __name__ == "__main__":
    main()
