"""Draws the banner of the README: from noise on the left to clothes on the right.

    python launch.py --config configs/fashion_mnist.py --mode train
    python docs/banner.py runs/fashion_mnist

Every picture is another sample; a column is a moment of sampling.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_jax import open_run

ROWS, COLUMNS, GAP = 5, 30, 2


def main() -> None:
    """Draws it with the run in a folder."""
    folder = sys.argv[1] if len(sys.argv) > 1 else "runs/fashion_mnist"
    # The first steps change nothing that is seen: they have no column.
    model = open_run(folder, sampler="dpmpp_multistep", steps=COLUMNS + 9, guidance_scale=1.5)
    index = np.arange(ROWS * COLUMNS)
    labels = np.random.default_rng(0).integers(10, size=len(index)).astype(np.int32)
    _, states = model.items(0, index, {"label": labels}, keep=1)
    assert states is not None
    cells = states[index % COLUMNS - COLUMNS, index]  # [ROWS * COLUMNS, 28, 28, 1]
    framed = np.pad(cells[..., 0], ((0, 0), (GAP, 0), (GAP, 0)))
    rows = framed.reshape(ROWS, COLUMNS, *framed.shape[1:])
    banner = np.vstack([np.hstack(row) for row in rows])
    path = Path(__file__).parent / "images" / "banner.png"
    Image.fromarray(banner).save(path)
    print(f"{path}: {banner.shape[1]} x {banner.shape[0]}")


if __name__ == "__main__":
    main()
