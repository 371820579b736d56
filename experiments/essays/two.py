"""Claim 4: trained on two pictures, a dog and a cat; then on 20, 200 and 2,000.

Emoji of OpenMoji in a folder for each class: dog, cat, and other from 20 on. See README.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from absl import logging

from configs import digits
from diffusion_jax import run
from diffusion_jax.data import Dataset, load_dataset
from diffusion_jax.evaluation.extractor import entries
from diffusion_jax.from_config import Config
from diffusion_jax.metrics.intervals import mean
from diffusion_jax.metrics.similarity import cosines
from diffusion_jax.system.pictures import save_png, tile
from diffusion_jax.system.runtime import enable_compilation_cache
from experiments.essays.bench import Bench, rounded, share
from experiments.essays.measure import add
from experiments.generalisation.halves import COPIED, nearest

STEPS = {2: 500, 20: 15_000, 200: 15_000, 2000: 15_000}
"""Of training, by the number of pictures."""
PAIR = {"cat": "cat face, line drawing", "dog": "dog face, line drawing"}
"""Classes, and the names of their pictures."""


def write(dataset: Dataset, size: int, folder: Path) -> None:
    """Writes `size` pictures of the emoji's training split, the pair first, by class."""
    split = dataset.splits["train"]
    names = split.names(np.arange(len(split)))
    rows = {kind: names.index(name) for kind, name in PAIR.items()}
    rest = [row for row in range(len(split)) if row not in rows.values()]
    rest = list(np.random.default_rng(0).permutation(rest)[: size - len(rows)])
    for kind, own in [*((kind, [row]) for kind, row in rows.items()), ("other", rest)]:
        items, _ = split.gather(np.array(own, int))
        for number, item in zip(own, items, strict=True):
            path = folder / kind / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(path, item, {})


def config_of(folder: Path, steps: int) -> Config:
    """A small transformer on 16x16 pixels; every part of the pair is seen as often as the others.

    Its guidance may compose two labels.
    """
    config = digits.get_config()
    config.data.name, config.data.dir, config.data.image_size = "folder", str(folder), 16
    config.data.heldout_fraction = 0.0
    config.model.dit.hidden_size = 128
    config.train.steps = config.train.checkpoint_every = steps
    config.train.batch_size = 32
    config.train.heldout_every = config.train.sample_every = 0
    return config


def look(bench: Bench, num: int) -> tuple[dict, np.ndarray]:
    """What is drawn of each label, of none, and of both labels at once; and ten of each."""
    dataset = bench.model.run.parts.dataset
    train, known = bench.arrays("train")
    names = dataset.class_names
    cat, dog = (np.full(num, names.index(kind)) for kind in PAIR)
    pair = [train[known == names.index(kind)][:1] for kind in PAIR]
    x_T, none = bench.start(num), np.full(num, -1)
    drawn = {
        "cat": bench.down(x_T, cat),
        "dog": bench.down(x_T, dog),
        "neither": bench.down(x_T, none),
        "both": bench.down(x_T, cat, others=[dog]),
    }
    found: dict = {"training pictures": len(train), "n": num}
    for name, images in drawn.items():
        cosine, _ = nearest(images, train)
        to_pair = [cosines(images, np.repeat(one, num, 0)) for one in pair]
        found[name] = {
            "copies": share(cosine > COPIED),
            "cosine to the nearest training picture": mean(cosine),
            "cosine to the cat": mean(to_pair[0]),
            "cosine to the dog": mean(to_pair[1]),
            "copies of the cat or the dog": share(np.max(to_pair, axis=0) > COPIED),
        }
    found["cosine of cat and dog"] = float(cosines(*pair)[0])
    halfway = (pair[0].astype(float) + pair[1]) / 2
    found["both, cosine to the mean of cat and dog"] = mean(
        cosines(drawn["both"], np.repeat(halfway, num, 0))
    )
    return found, np.concatenate([images[:10] for images in drawn.values()])


def main() -> None:
    """Train and measure; write results and pictures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=STEPS)
    parser.add_argument("--steps", type=int, default=0, help="0: STEPS")
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--workdir", type=Path, default=Path("runs/essays"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    enable_compilation_cache()
    for size in args.sizes:
        folder = args.workdir / f"pictures_{size}"
        if not folder.exists():
            write(load_dataset("emoji"), size, folder)
        workdir = args.workdir / f"model_{size}"
        if status := run.run(config_of(folder, args.steps or STEPS[size]), workdir, "train"):
            raise SystemExit(status)
        model = run.open_run(workdir)
        bench = Bench(model, entries(model.run.parts.dataset.kind))
        found, images = look(bench, args.num)
        add(args.out, "two", f"{size} pictures", found)
        print(size, json.dumps(rounded(found)), flush=True)
        save_png(args.out / f"two_{size}.png", tile(images, 10), {**model.made_by(0)})


if __name__ == "__main__":
    main()
