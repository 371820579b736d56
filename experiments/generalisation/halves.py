"""Compares the samples of two networks without common training images, from the same noise.

Trains pairs of unconditional networks on disjoint sets of N digits each, samples from both with the
same noise, and measures how similar their samples are to each other and to the nearest training
images. Finished runs are not repeated. See README.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from absl import logging

from configs import digits
from diffusion_jax import run
from diffusion_jax.from_config import Config
from diffusion_jax.metrics.intervals import Z
from diffusion_jax.metrics.neighbours import two_nearest
from diffusion_jax.metrics.similarity import cosines
from diffusion_jax.system.pictures import save_png, tile

HALF = 721
"""Half the number of scikit-learn's training digits."""
SIZES = (8, 32, 128, 360, 721)
SAMPLES = 500
COPIED = 0.95
"""Cosine to a training image above which a sample is called a copy."""


def config_of(size: int, first: int, seed: int, steps: int) -> Config:
    """The quick start's network, without labels, on `size` images from number `first`."""
    config = digits.get_config()
    config.seed = seed
    config.data.train_split = f"train[{first}:{first + size}]"
    config.objective.cond_dropout = 1.0
    config.train.steps = steps
    config.train.heldout_every = config.train.sample_every = 0
    config.train.checkpoint_every = steps
    config.sample.labels = "none"
    config.sample.sampler, config.sample.grid = "ddim", "uniform"
    return config


def drawn(config: Config, workdir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a network, which is trained if necessary, and its training images."""
    if status := run.run(config, workdir, "train"):
        raise SystemExit(status)
    model = run.open_run(workdir)
    return model.draw(SAMPLES), model.run.parts.dataset.arrays("train")[0]


def nearest(images: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each image to the most similar training image, and that image."""

    def directions(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(len(x), -1).astype(np.float64)
        flat -= flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    _, numbers = two_nearest(directions(images), directions(train))
    which = train[numbers[:, 0]]
    return cosines(images, which), which


def mean(values: np.ndarray) -> list[float]:
    """Mean and 95% interval over samples."""
    half = Z * values.std(ddof=1) / len(values) ** 0.5
    return [float(v) for v in (values.mean(), values.mean() - half, values.mean() + half)]


def compare(size: int, seed: int, steps: int, folder: Path) -> tuple[dict, np.ndarray]:
    """Figures of a pair, and rows of images: both networks' samples and their nearest images."""
    pairs = []
    for half, first in enumerate((0, HALF)):
        config = config_of(size, first, seed, steps)
        pairs.append(drawn(config, folder / f"n{size}_half{half}_seed{seed}"))
    (a, train_a), (b, train_b) = pairs
    own = [nearest(a, train_a), nearest(b, train_b)]
    of_other = np.concatenate([nearest(a, train_b)[0], nearest(b, train_a)[0]])
    to_own = np.concatenate([cosine for cosine, _ in own])
    shuffled = cosines(a, np.roll(b, 1, axis=0))
    found = {
        "images": size,
        "seed": seed,
        "same noise": mean(cosines(a, b)),
        "other noise": mean(shuffled),
        "to its own training images": mean(to_own),
        "to the other's training images": mean(of_other),
        "copies": mean((to_own > COPIED).astype(float)),
    }
    rows = [a, b, own[0][1], own[1][1]]
    return found, np.concatenate([x[:10] for x in rows])


def draw_curve(rows: list[dict], out: Path) -> None:
    """Plots the results against the number of training images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    sizes = sorted({row["images"] for row in rows})
    for name in ("same noise", "other noise", "to its own training images", "copies"):
        means = [np.mean([r[name][0] for r in rows if r["images"] == n]) for n in sizes]
        axes.plot(sizes, means, "o-", label=name)
    axes.set(xscale="log", xlabel="training images of each network", ylim=(-0.05, 1.05))
    axes.set_ylabel("cosine; share of copies")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.legend()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Runs all pairs; writes results and images next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workdir", type=Path, default=Path("runs/generalisation"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    rows = []
    for seed in args.seeds:
        for size in args.sizes:
            found, pictures = compare(size, seed, args.steps, args.workdir)
            print(json.dumps(found), flush=True)
            rows.append(found)
            if seed == args.seeds[0]:
                save_png(args.out / f"pairs_{size}.png", tile(pictures, 10), {"images": size})
    (args.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw_curve(rows, args.out / "curve.png")


if __name__ == "__main__":
    main()
