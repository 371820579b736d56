"""Error of upscaled held-out emoji, compared with bicubic and Lanczos interpolation.

One image of each held-out concept, chosen at random, is averaged down from 64 to 32 pixels and
upscaled again, by samples of a run's network and by Pillow. See README.md.
"""

import argparse
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffusion_jax import run
from diffusion_jax.data import to_float, to_uint8
from diffusion_jax.metrics.fidelity import psnr
from diffusion_jax.metrics.intervals import Z
from diffusion_jax.restoration.linear import Downscale
from diffusion_jax.run import Trained
from diffusion_jax.system.pictures import save_png, tile

SAMPLES = 4
"""Number of samples per image, whose mean approximates a least-squares estimate."""
SHOWN = 8


def inconsistency(images: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Mean squared error on [-1, 1] between each image, averaged down again, and its input."""
    again = np.asarray(Downscale(images.shape[1] // low.shape[1])(jnp.asarray(to_float(images))))
    return ((again - to_float(low)) ** 2).reshape(len(low), -1).mean(1)


def enlarged(low: np.ndarray, factor: int, method: Image.Resampling) -> np.ndarray:
    """Images uint8 `[N, H, W, 3]` resized by Pillow."""
    size = low.shape[2] * factor, low.shape[1] * factor
    return np.stack([np.asarray(Image.fromarray(one).resize(size, method)) for one in low])


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and 95% interval of independent values."""
    mean, half = values.mean(), Z * values.std(ddof=1) / len(values) ** 0.5
    return {"value": float(mean), "low": float(mean - half), "high": float(mean + half)}


def measure(model: Trained, num: int) -> tuple[dict, np.ndarray]:
    """Figures of `num` images, and some of these: upscaled in each way, and the original."""
    split = model.run.parts.dataset.splits["heldout"]
    factor = model.run.config.image_condition.low_resolution.factor
    assert split.captions is not None
    concepts = np.array(split.captions.concepts)
    order = np.random.default_rng(0).permutation(len(concepts))
    rows = order[np.unique(concepts[order], return_index=True)[1]]
    rows = np.random.default_rng(1).permutation(rows)[:num]
    originals, labels = split.gather(rows)
    low = to_uint8(Downscale(factor)(jnp.asarray(to_float(originals))))

    cond = model.run.conditions.cond_of("heldout", rows, labels)
    each = {name: np.repeat(array, SAMPLES, axis=0) for name, array in cond.items()}
    images, _ = model.items(0, np.arange(SAMPLES * len(rows)), each)
    samples = images.reshape(len(rows), SAMPLES, *images.shape[1:])
    ways = {
        "sample": samples[:, 0],
        f"mean of {SAMPLES} samples": np.rint(samples.mean(1)).astype(np.uint8),
        "bicubic": enlarged(low, factor, Image.Resampling.BICUBIC),
        "lanczos": enlarged(low, factor, Image.Resampling.LANCZOS),
        "nearest": enlarged(low, factor, Image.Resampling.NEAREST),
    }
    ratios = {name: psnr(made, originals, data_range=255) for name, made in ways.items()}
    found = {
        name: {
            "psnr": interval(ratios[name]),
            "psnr over lanczos": interval(ratios[name] - ratios["lanczos"]),
            "inconsistency": interval(inconsistency(made, low)),
        }
        for name, made in ways.items()
    }
    columns = [ways["nearest"], ways["lanczos"], samples[:, 0], samples[:, 1], originals]
    shown = np.stack(columns, 1)[:SHOWN].reshape(-1, *originals.shape[1:])
    result = {"n": len(rows), "step": model.step, "ways": found}
    return result, tile(shown, 2 * len(columns))


def main() -> None:
    """Measures the newest checkpoint of a run; writes results and images next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/emoji_upscale"))
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    model = run.open_run(options.workdir)
    result, picture = measure(model, options.num)
    text = json.dumps(result, indent=1) + "\n"
    (options.out / "results.json").write_text(text, encoding="utf-8")
    for name, figures in result["ways"].items():
        print(name, {k: tuple(round(v, 5) for v in e.values()) for k, e in figures.items()})
    save_png(options.out / "upscaled.png", picture, model.made_by(0))


if __name__ == "__main__":
    main()
