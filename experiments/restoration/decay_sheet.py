"""A sheet of each kind of decay at three severities, and of all together: `decay.png`.

Run `python -m experiments.restoration.decay_sheet [photograph]`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from diffusion_jax.data import to_float, to_uint8
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.restoration.decay import KINDS, Decay
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.pictures import captioned
from diffusion_jax.types import Array

SIDE = 88
SEVERITIES = (0.25, 0.6, 1.0)


def photograph(file: str = "", side: int = SIDE) -> np.ndarray:
    """The middle of a photograph, or of scikit-learn's of a temple; uint8 `[side, side, 3]`."""
    image = Image.open(file) if file else Image.fromarray(load_sample_image("china.jpg"))
    width, height = image.size
    part = min(image.size)
    left, top = (width - part) // 2, (height - part) // 2
    square = image.convert("RGB").crop((left, top, left + part, top + part))
    return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))


def sheet(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    """A row for each kind, severities from the left, then of all kinds; uint8 `[H, W, 3]`."""
    n = len(SEVERITIES)
    x = jnp.tile(jnp.asarray(to_float(picture[None])), (n, 1, 1, 1))
    severity = jnp.array(SEVERITIES)
    rows: list[Array] = []
    for number, kind in enumerate(KINDS.values()):
        keys = jnp.repeat(sample_keys(make_key(seed), jnp.array([number])), n)
        rows.append(jax.jit(kind)(x, keys, severity).image)
    both = jnp.concatenate([x, x]), sample_keys(make_key(seed), jnp.arange(2 * n))
    rows.append(jax.jit(Decay(jnp.tile(severity, 2)).__call__)(*both).image)
    names = (*KINDS, "all", "all")
    return captioned(to_uint8(np.concatenate(rows)), names, n)


def main(arguments: Sequence[str]) -> None:
    """Writes the sheet beside this file."""
    made = Image.fromarray(sheet(photograph(arguments[0] if arguments else "")))
    made.save(Path(__file__).parent / "decay.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
