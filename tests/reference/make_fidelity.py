"""SSIM of scikit-image for arrays of known seeds: makes `fidelity.json`.

Run it with scikit-image 0.26.0; it writes next to itself. Only `test_fidelity.py` uses the result.
"""

import json
import pathlib

import numpy as np
from skimage.metrics import structural_similarity

SHAPES = ((3, 24, 17, 3), (2, 40, 2), (1, 13, 12, 11, 1))


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays on [-1, 1] that resemble each other, the same in the test."""
    rng = np.random.default_rng(len(shape))
    smooth = np.cumsum(rng.normal(size=shape), axis=1)
    a = np.tanh(smooth / 3)
    return a, np.clip(0.8 * a + 0.2 * rng.normal(size=shape), -1, 1)


def main() -> None:
    """Writes the similarity of every pair."""
    found = [
        [
            float(
                structural_similarity(
                    one,
                    other,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                    data_range=2,
                    channel_axis=-1,
                )
            )
            for one, other in zip(*pair(shape), strict=True)
        ]
        for shape in SHAPES
    ]
    path = pathlib.Path(__file__).parent / "fidelity.json"
    path.write_text(json.dumps(dict(zip(map(str, SHAPES), found, strict=True)), indent=2) + "\n")


if __name__ == "__main__":
    main()
