"""Claim 5 with texts: variants of one name from different noise, against unguided samples.

See README.md.
"""

import argparse
from pathlib import Path

import numpy as np
from absl import logging

from diffusion_jax import run
from diffusion_jax.data import to_float
from diffusion_jax.metrics.intervals import mean
from diffusion_jax.metrics.similarity import cosines
from diffusion_jax.system.pictures import save_png, tile
from diffusion_jax.system.runtime import enable_compilation_cache
from experiments.essays.measure import add
from experiments.essays.states import spread

SCALES = (1.0, 3.0)
SHOWN = 3  # texts on the sheet


def texts(workdir: Path, num: int, variants: int) -> tuple[dict, np.ndarray]:
    """The spread over `variants` noises of each of `num` names of training images; and a sheet."""
    model = run.open_run(workdir, guidance_scale=1.0)
    split = model.run.parts.dataset.splits["train"]
    rows = np.random.default_rng(0).permutation(len(split))[:num]
    names, (real, _) = split.names(rows), split.gather(rows)
    groups = np.repeat(np.arange(num), variants)
    free = model.draw(len(groups), prompts="")
    base = spread(free, np.zeros(len(free)))
    found: dict = {
        "names": num,
        "variants of each": variants,
        "spread of samples without a text": mean(base),
        "spread of training pictures": mean(spread(real, np.zeros(num))),
    }
    shown = [free[:10]]
    for scale in SCALES:
        drawing = run.open_run(workdir, guidance_scale=scale)
        images = np.concatenate([drawing.draw(variants, prompts=name) for name in names])
        own = spread(images, groups).reshape(num, variants).mean(1)
        middles = np.stack([to_float(images[groups == group]).mean(0) for group in range(num)])
        others = np.roll(to_float(real), 1, 0)
        found[f"scale {scale:g}"] = {
            "spread": mean(own),
            "over that of samples without a text": mean(own / base.mean()),
            "mean variant to the picture of its name, cosine": mean(cosines(middles, real)),
            "mean variant to the picture of another, cosine": mean(cosines(middles, others)),
        }
        shown += [images[groups == group][:10] for group in range(SHOWN)]
    found["shown"] = names[:SHOWN]
    return found, np.concatenate(shown)


def main() -> None:
    """Measure; write results and a sheet beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--num", type=int, default=40, help="names")
    parser.add_argument("--variants", type=int, default=16, help="samples of each")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    enable_compilation_cache()
    found, images = texts(args.workdir, args.num, args.variants)
    add(args.out, "destination", "texts", found)
    save_png(args.out / "destination_texts.png", tile(images, 10), {"claim": "texts"})
    print(found)


if __name__ == "__main__":
    main()
