"""Outputs of diffusers' text-conditioned U-Net for known weights and inputs: makes `unet.npz`.

Run it in an environment with `requirements.txt`; it writes next to itself. Only `test_models.py`
uses the result. Every weight has its own generator, seeded by its name in this package (`drawn`
here and in the test), so that weights need not be stored.
"""

import pathlib
import re
import zlib

import numpy as np
import torch
from diffusers import UNet2DConditionModel

LEVELS = 2
NAMES = [
    (r"time_embedding\.linear_(\d)", lambda m: f"embedding/time_{int(m[1]) - 1}"),
    (r"conv_norm_out", lambda m: "norm_out"),
    (r"mid_block\.resnets\.(\d)", lambda m: f"middle_{m[1]}_res"),
    (r"mid_block\.attentions\.0", lambda m: "middle_attention"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"down_{m[1]}_{m[2]}_res"),
    (r"down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"down_{m[1]}_{m[2]}_attention"),
    (r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"down_{m[1]}_resample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up_{LEVELS - 1 - int(m[1])}_{m[2]}_res"),
    (
        r"up_blocks\.(\d)\.attentions\.(\d)",
        lambda m: f"up_{LEVELS - 1 - int(m[1])}_{m[2]}_attention",
    ),
    (r"up_blocks\.(\d)\.upsamplers\.0\.conv", lambda m: f"up_{LEVELS - 1 - int(m[1])}_resample"),
    (r"\.time_emb_proj", lambda m: "/emb"),
    (r"\.conv_shortcut", lambda m: "/skip"),
    (r"_res\.(norm|conv)(\d)", lambda m: f"_res/{m[1]}_{int(m[2]) - 1}"),
    (
        r"\.transformer_blocks\.0\.norm(\d)",
        lambda m: f"/norm_{('self', 'text', 'mlp')[int(m[1]) - 1]}",
    ),
    (
        r"\.transformer_blocks\.0\.attn(\d)\.to_(q|k|v|out)(\.0)?",
        lambda m: f"/{('self', 'text')[int(m[1]) - 1]}_{m[2]}",
    ),
    (r"\.transformer_blocks\.0\.ff\.net\.0\.proj", lambda m: "/mlp_0"),
    (r"\.transformer_blocks\.0\.ff\.net\.2", lambda m: "/mlp_1"),
    (r"_attention\.(norm|proj_in|proj_out)", lambda m: f"_attention/{m[1]}"),
]
"""Replacements from diffusers' names to ours, applied in order."""


def our_name(name: str, value: torch.Tensor) -> str:
    """The name in this package, such as `down_0_0_res/conv_0/kernel`."""
    for pattern, ours in NAMES:
        name = re.sub(pattern, ours, name)
    path, leaf = name.rsplit(".", 1)
    if leaf == "bias":
        return f"{path}/bias"
    return f"{path}/{'scale' if value.ndim == 1 else 'kernel'}"


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight `name` in this package's layout: 0.05 times a normal, 1 more for scales."""
    values = 0.05 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return values + name.endswith("scale")


def transposed(values: torch.Tensor) -> tuple[int, ...]:
    """The axes of a weight in this package's layout: kernels are [K, K, C, D] or [C, D]."""
    return {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[values.ndim]


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
    weights = {}
    for name, value in net.state_dict().items():
        axes = transposed(value)
        shape = tuple(value.shape[axis] for axis in axes)
        values = drawn(our_name(name, value), shape)
        if value.ndim == 4 and value.shape[2:] == (1, 1) and "proj" in name:  # a dense layer here
            values = drawn(our_name(name, value), shape[2:])[None, None]
        weights[name] = torch.from_numpy(values.transpose(np.argsort(axes)).copy())
    net.load_state_dict(weights)
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
