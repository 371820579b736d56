"""Names of Stable Diffusion's autoencoder in its published files: `weights.Format`s.

A folder of diffusers has one of two generations of names for its attention; the single file has
those of CompVis' `ldm/modules/diffusionmodules/model.py`.
"""

import re
from collections.abc import Sequence
from typing import Any

from diffusion_jax.models.weights import Format, Stored, in_layer

Table = Sequence[tuple[str, str]]
"""Replacements of a part of a path, the first of which that matches all of it is used."""

_LAYERS: Table = (
    ("norm_0", "norm1"),
    ("conv_0", "conv1"),
    ("norm_1", "norm2"),
    ("conv_1", "conv2"),
)
_FOLDER: Table = (
    *_LAYERS,
    ("skip", "conv_shortcut"),
    ("norm_out", "conv_norm_out"),
    (r"(down|up)_(\d+)_(\d+)_res", r"\1_blocks.\2.resnets.\3"),
    (r"(down|up)_(\d+)_resample", r"\1_blocks.\2.\1samplers.0.conv"),
    (r"middle_(\d)_res", r"mid_block.resnets.\1"),
    ("middle_attention", "mid_block.attentions.0"),
    ("norm", "group_norm"),
)
_NEW: Table = (*_FOLDER, ("[qkv]", r"to_\g<0>"), ("out", "to_out.0"))
_OLD: Table = (*_FOLDER, ("q", "query"), ("k", "key"), ("v", "value"), ("out", "proj_attn"))
_COMPVIS: Table = (
    *_LAYERS,
    ("skip", "nin_shortcut"),
    (r"(down|up)_(\d+)_(\d+)_res", r"\1.\2.block.\3"),
    (r"(down|up)_(\d+)_resample", r"\1.\2.\1sample.conv"),
    ("middle_0_res", "mid.block_1"),
    ("middle_1_res", "mid.block_2"),
    ("middle_attention", "mid.attn_1"),
    ("out", "proj_out"),
)


def diffusers(template: Any) -> Format:
    """The format of `vae/diffusion_pytorch_model.safetensors`, of an autoencoder's variables."""
    return _folder(template, _NEW)


def diffusers_old(template: Any) -> Format:
    """The same with the names of attention that diffusers wrote until 2023 and still reads."""
    return _folder(template, _OLD)


def compvis(template: Any) -> Format:
    """The format of `first_stage_model.` in a single file: attention is 1 x 1 convolutions."""

    def layout(path: tuple[str, ...], leaf: Any) -> Stored:
        spatial = 2 if "middle_attention" in path else None
        return in_layer(_layer(path[:-1], _COMPVIS), path[-1], leaf, spatial)

    return layout


def _folder(template: Any, table: Table) -> Format:
    found = (re.match(r"up_(\d+)_", name) for name in template["params"]["decoder"])
    last = max(int(match[1]) for match in found if match)

    def upwards(match: re.Match[str]) -> str:  # levels of the decoder are in the order of its way
        return f"up_{last - int(match[1])}_"

    def layout(path: tuple[str, ...], leaf: Any) -> Stored:
        path = tuple(re.sub(r"^up_(\d+)_", upwards, part) for part in path)
        return in_layer(_layer(path[:-1], table), path[-1], leaf)

    return layout


def _layer(path: tuple[str, ...], table: Table) -> str:
    """The layer of a file that is the module `path`."""
    if path[-1] in ("quant_conv", "post_quant_conv"):  # outside of encoder and decoder there
        return path[-1]
    return ".".join(_renamed(part, table) for part in path)


def _renamed(part: str, table: Table) -> str:
    for pattern, theirs in table:
        if match := re.fullmatch(pattern, part):
            return match.expand(theirs)
    return part
