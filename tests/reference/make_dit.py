"""Outputs of diffusers' DiT for known weights and inputs, in float64: makes `dit.npz`.

Run it in an environment with `requirements.txt`; it writes next to itself. Weights are drawn by
their names in facebookresearch/DiT's file, whose layers are renamed here as diffusers' own
`convert_dit_to_diffusers.py` does. Where diffusers' model differs from the published one, it is
made like that: the frequencies of its times (`downscale_freq_shift` is 1 there), and the epsilon of
the norm before the MLP (1e-5 by default).
"""

import pathlib
import re
from unittest import mock

import numpy as np
import torch
from diffusers import DiTTransformer2DModel
from make_unet import drawn

WIDTH, DEPTH, HEADS, SIDE, CLASSES = 48, 2, 4, 8, 10
RENAMED = (
    (r"transformer_blocks\.\d+\.norm1\.emb\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"transformer_blocks\.\d+\.norm1\.emb\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"transformer_blocks\.\d+\.norm1\.emb\.class_embedder", "y_embedder"),
    (r"transformer_blocks\.(\d+)\.norm1\.linear", r"blocks.\1.adaLN_modulation.1"),
    (r"transformer_blocks\.(\d+)\.attn1\.to_out\.0", r"blocks.\1.attn.proj"),
    (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"blocks.\1.mlp.fc1"),
    (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"blocks.\1.mlp.fc2"),
    (r"pos_embed\.proj", "x_embedder.proj"),
    (r"proj_out_1", "final_layer.adaLN_modulation.1"),
    (r"proj_out_2", "final_layer.linear"),
)


def published(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of a layer of diffusers', from the published file."""
    if match := re.fullmatch(r"transformer_blocks\.(\d+)\.attn1\.to_([qkv])\.(\w+)", name):
        block, which, kind = match.groups()
        whole = drawn(f"blocks.{block}.attn.qkv.{kind}", (3 * shape[0], *shape[1:]))
        return np.split(whole, 3)["qkv".index(which)]
    for pattern, theirs in RENAMED:
        name = re.sub(pattern, theirs, name)
    return drawn(name, shape)


def main() -> None:
    """Writes the inputs and the network's outputs."""
    net = DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=4,
        out_channels=8,
        num_layers=DEPTH,
        sample_size=SIDE,
        patch_size=2,
        num_embeds_ada_norm=CLASSES,
        norm_eps=1e-6,
    ).double()
    net.eval()
    state = net.state_dict()
    net.load_state_dict(
        {name: torch.from_numpy(published(name, tuple(v.shape))) for name, v in state.items()}
    )
    for block in net.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((3, SIDE, SIDE, 4)), np.array([0.0, 20.0, 999.0])
    label = np.array([3, -1, 0])
    with torch.no_grad(), mock.patch.object(torch, "float32", torch.float64):
        y = net(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            torch.from_numpy(t),
            torch.from_numpy(np.where(label < 0, CLASSES, label)),
        ).sample
    y = y.numpy().transpose(0, 2, 3, 1)
    path = pathlib.Path(__file__).with_name("dit.npz")
    np.savez(path, x=x, t=t, label=label, y=y)


if __name__ == "__main__":
    main()
