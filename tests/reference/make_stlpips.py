"""ST-LPIPS of known images by its published code: makes `stlpips.json`.

Run it with torch 2.14.1, torchvision 0.29.1 and stlpips_pytorch 0.0.2, the last without what it
depends on; it writes next to itself. Only `test_perceptual.py` uses the result. The weights are
those of the package, and random ones, seeded by their names.
"""

import json
import pathlib
import sys
import types
import zlib

import numpy as np
import torch

# Which the package imports and does not use.
sys.modules["IPython"] = types.SimpleNamespace(embed=None)
sys.modules["torchsummary"] = types.SimpleNamespace(summary=None)

from stlpips_pytorch.stlpips import LPIPS  # noqa: E402

SIZES = ((21, 21), (45, 38), (64, 96))
CONSTANT = ("scaling_layer", ".filt")


def pair(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Three pairs of images on [-1, 1], the same in the test."""
    rng = np.random.default_rng(size[0])
    a = np.tanh(np.cumsum(rng.normal(size=(3, *size, 3)), axis=1) / 3)
    b = np.clip(
        0.9 * a + np.array([0, 0.1, 0.5])[:, None, None, None] * rng.normal(size=a.shape), -1, 1
    )
    return a.astype(np.float32), b.astype(np.float32)


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A random weight, the same in the test; those of the distance are positive."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    scale = np.float32(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else np.float32(0.1)
    return np.abs(x * scale) if name.startswith("lin") else x * scale


@torch.no_grad()
def main() -> None:
    """Writes the distances, and the names and shapes of the weights."""
    net = LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    trained = net.state_dict()
    # The layers are in the state twice, as attributes and in a list.
    shapes = {n: list(a.shape) for n, a in trained.items() if not n.startswith("lins.")}
    random = {
        name: value if any(c in name for c in CONSTANT) else torch.tensor(drawn(name, value.shape))
        for name, value in trained.items()
        if name in shapes
    }

    def distances() -> dict[str, list[float]]:
        images = {size: map(torch.tensor, pair(size)) for size in SIZES}
        return {
            str(size): net(*(x.permute(0, 3, 1, 2) for x in both)).flatten().tolist()
            for size, both in images.items()
        }

    found = {"shapes": shapes, "trained": distances()}
    net.load_state_dict(random, strict=False)
    found["drawn"] = distances()
    path = pathlib.Path(__file__).parent / "stlpips.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
