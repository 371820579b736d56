"""Outputs of diffusers' text-conditioned U-Net for known weights and inputs: makes `unet.npz`.

Run it in an environment with `requirements.txt`; it writes next to itself. Only `test_models.py`
uses the result. Every weight has its own generator, seeded by its name in diffusers (`drawn` here
and in `tests/published.py`), so that weights need not be stored.
"""

import pathlib
import zlib

import numpy as np
import torch
from diffusers import UNet2DConditionModel


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor `name`: 0.05 times a normal, 1 more for the scales of norms; float32."""
    values = 0.05 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return np.float32(values + (len(shape) == 1 and name.endswith("weight")))


def main() -> None:
    """Writes the inputs and the network's outputs."""
    net = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(128, 256),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,  # the number of heads, as in Stable Diffusion's own config
    ).double()
    state = net.state_dict().items()
    net.load_state_dict({n: torch.from_numpy(drawn(n, tuple(v.shape))) for n, v in state})
    rng = np.random.default_rng(0)
    x, text = rng.standard_normal((2, 8, 8, 4)), rng.standard_normal((2, 5, 24))
    t = np.array([0.1, 0.9])
    with torch.no_grad():
        y = net(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            torch.from_numpy(1000 * t),
            torch.from_numpy(text),
        ).sample
    y = y.numpy().transpose(0, 2, 3, 1)
    path = pathlib.Path(__file__).with_name("unet.npz")
    np.savez(path, x=x, text=text, t=t, y=y)


if __name__ == "__main__":
    main()
