"""Names of Stable Diffusion v1's U-Net, for any number of levels and blocks.

In diffusers' folders levels are counted from the input on both ways, so those on the way up are in
reverse. CompVis' single files count blocks: on each way one per residual block and, on the way
down, one per resampling.
"""

import re
from collections.abc import Callable
from typing import Any

from diffusion_jax.models.weights import Format, Stored, WeightsError, in_layer

OUTER = {
    "conv_in": ("conv_in", "input_blocks.0.0"),
    "embedding/time_0": ("time_embedding.linear_1", "time_embed.0"),
    "embedding/time_1": ("time_embedding.linear_2", "time_embed.2"),
    "norm_out": ("conv_norm_out", "out.0"),
    "conv_out": ("conv_out", "out.2"),
}
"""Layers outside of the blocks: here, in diffusers, in CompVis' file."""
TRANSFORMER = {
    **{name: name for name in ("norm", "proj_in", "proj_out")},
    **{
        f"{ours}_{part}": f"transformer_blocks.0.{theirs}.to_{part}{'.0' * (part == 'out')}"
        for ours, theirs in (("self", "attn1"), ("text", "attn2"))
        for part in ("q", "k", "v", "out")
    },
    "norm_self": "transformer_blocks.0.norm1",
    "norm_text": "transformer_blocks.0.norm2",
    "norm_mlp": "transformer_blocks.0.norm3",
    "mlp_0": "transformer_blocks.0.ff.net.0.proj",
    "mlp_1": "transformer_blocks.0.ff.net.2",
}
INSIDE = {
    "res": {
        "norm_0": ("norm1", "in_layers.0"),
        "conv_0": ("conv1", "in_layers.2"),
        "emb": ("time_emb_proj", "emb_layers.1"),
        "norm_1": ("norm2", "out_layers.0"),
        "conv_1": ("conv2", "out_layers.3"),
        "skip": ("conv_shortcut", "skip_connection"),
    },
    "attention": {ours: (theirs, theirs) for ours, theirs in TRANSFORMER.items()},
    "resample": {"": ("", "")},
}
"""Layers inside of each kind of block, likewise."""
POINTWISE = ("proj_in", "proj_out")
"""Dense layers that are 1x1 convolutions in the files."""
BLOCK = re.compile(r"(down|middle|up)_(?:(\d+)_)??(?:(\d+)_)?(res|attention|resample)")

Place = Callable[[str, int, int, str], str]
"""The file's name of a block: by way ('down', 'middle' or 'up'), level, number and kind."""


def diffusers(template: Any) -> Format:
    """The format of `unet/diffusion_pytorch_model.safetensors`, of a U-Net of these variables."""
    levels, _, _ = _sizes(template)
    folders = {"res": "resnets", "attention": "attentions"}

    def place(way: str, level: int, number: int, kind: str) -> str:
        if way == "middle":
            return f"mid_block.{folders[kind]}.{number}"
        if way == "up":
            level = levels - 1 - level
        if kind == "resample":
            return f"{way}_blocks.{level}.{way}samplers.0.conv"
        return f"{way}_blocks.{level}.{folders[kind]}.{number}"

    return _layout(place, 0)


def compvis(template: Any) -> Format:
    """The format of `model.diffusion_model.` in a single file, of a U-Net of these variables."""
    levels, blocks, attention = _sizes(template)

    def place(way: str, level: int, number: int, kind: str) -> str:
        inside = int(kind == "attention")
        if way == "middle":
            return f"middle_block.{inside or 2 * number}"
        if way == "down":
            first = 1 + (blocks + 1) * level
            if kind == "resample":
                return f"input_blocks.{first + blocks}.0.op"
            return f"input_blocks.{first + number}.{inside}"
        first = (blocks + 1) * (levels - 1 - level)
        if kind == "resample":  # behind the last block, and its attention if it has one
            return f"output_blocks.{first + blocks}.{1 + (level in attention)}.conv"
        return f"output_blocks.{first + number}.{inside}"

    return _layout(place, 1)


def _layout(place: Place, column: int) -> Format:
    """The format with these names of blocks, and the layers' names of one column of the tables."""

    def layout(path: tuple[str, ...], leaf: Any) -> Stored:
        block, layer, whole = path[0], "/".join(path[1:-1]), "/".join(path[:-1])
        try:
            if whole in OUTER:
                return in_layer(OUTER[whole][column], path[-1], leaf)
            way, level, number, kind = _block(block)
            places = place(way, level, number, kind), INSIDE[kind][layer][column]
        except (KeyError, ValueError):
            raise WeightsError(
                f"the U-Net's {'/'.join(path)} is not part of Stable Diffusion v1, whose files "
                "have no name for it"
            ) from None
        spatial = 2 if layer in POINTWISE else None
        return in_layer(".".join(filter(None, places)), path[-1], leaf, spatial)

    return layout


def _block(module: str) -> tuple[str, int, int, str]:
    """Way, level, number in the level and kind of a block, from its name, such as 'down_0_1_res'.

    Raises:
        ValueError: it is no block.
    """
    if not (found := BLOCK.fullmatch(module)):
        raise ValueError(module)
    way, level, number, kind = found.groups()
    if kind == "resample":  # one per level
        level, number = number, "0"
    return way, int(level or 0), int(number or 0), kind


def _sizes(template: Any) -> tuple[int, int, set[int]]:
    """Number of levels, blocks per level on the way down, and the levels with attention."""
    found = [_block(module) for module in template["params"] if BLOCK.fullmatch(module)]
    down = [(level, number, kind) for way, level, number, kind in found if way == "down"]
    return (
        1 + max((level for level, _, _ in down), default=-1),
        1 + max((number for _, number, _ in down), default=-1),
        {level for level, _, kind in down if kind == "attention"},
    )
