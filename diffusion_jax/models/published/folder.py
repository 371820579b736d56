"""Whole folders as diffusers and transformers save Stable Diffusion v1: weights and their JSON.

Keys that are left out have the value that diffusers gives them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.published.files import PARTS, write_part
from diffusion_jax.models.unet import UNet
from diffusion_jax.system.files import write_whole

CLASSES = {
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""Library and class of each part of a pipeline, but for the scheduler, whose config has it."""
ABSENT = ("feature_extractor", "image_encoder", "safety_checker")
"""Parts that a pipeline of diffusers may have, and these have not."""
TOKENISER_FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
FULL_GROUPS = 32
"""Groups of the norms of published networks."""


class Written(NamedTuple):
    """A network of a folder."""

    config: Mapping[str, Any]  # of its `config.json`
    variables: Any


def unet_config(net: UNet, latent_channels: int, side: int) -> dict[str, Any]:
    """`unet/config.json` of a network on latents of `side` x `side` x `latent_channels`.

    Raises:
        ValueError: `name=value must ...`, of an argument that no file of version 1 can state.
    """
    plain = {"scale_shift": False, "resblock_updown": False, "symmetric_padding": True}
    sizes = {"patch_size": 1, "image_channels": 0, "out_channels": latent_channels}
    for name, value in {**plain, **sizes}.items():
        if (own := getattr(net, name)) != value:
            raise ValueError(f"{name}={own!r} must be {value!r}, as in Stable Diffusion v1")
    levels = range(len(net.channel_mults))
    attention = [level in net.attention_levels for level in levels]
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": net.num_heads,  # of heads, in spite of its name
        "block_out_channels": [net.channels * mult for mult in net.channel_mults],
        "center_input_sample": False,
        "cross_attention_dim": net.context_dim,
        "down_block_types": [f"{'CrossAttn' * a}DownBlock2D" for a in attention],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": latent_channels,
        "layers_per_block": net.num_blocks,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": _groups(net),
        "out_channels": net.out_channels,
        "sample_size": side,
        "up_block_types": [f"{'CrossAttn' * a}UpBlock2D" for a in reversed(attention)],
    }


def _groups(net: UNet) -> int:
    """The groups of all norms; fewer by width, as in narrow networks of ours, have no key."""
    if not net.norm_groups and net.channels * min(net.channel_mults) < 4 * FULL_GROUPS:
        raise ValueError(
            f"norm_groups=0 must be a number of groups, such as {FULL_GROUPS}: in a network as "
            "narrow as this it depends on the width, which published files cannot state"
        )
    return net.norm_groups or FULL_GROUPS


def text_config(net: TextTower, start: int) -> dict[str, Any]:
    """`text_encoder/config.json`; `start` is the token that begins texts."""
    return {
        "architectures": ["CLIPTextModel"],
        "bos_token_id": start,
        "dtype": "float32",
        "eos_token_id": net.end,
        "hidden_act": net.activation,
        "hidden_size": net.width,
        "intermediate_size": 4 * net.width,
        "max_position_embeddings": net.positions,
        "model_type": "clip_text_model",
        "num_attention_heads": net.heads,
        "num_hidden_layers": net.depth,
        "pad_token_id": net.end,
        "vocab_size": net.vocabulary,
    }


def tokeniser_config(length: int) -> dict[str, Any]:
    """`tokenizer/tokenizer_config.json`, where the tokeniser came without one."""
    end = "<|endoftext|>"
    return {
        "bos_token": "<|startoftext|>",
        **dict.fromkeys(("eos_token", "pad_token", "unk_token"), end),
        "model_max_length": length,
        "tokenizer_class": "CLIPTokenizer",
    }


def write_folder(
    folder: Path,
    parts: Mapping[str, Written],
    scheduler: Mapping[str, Any],
    tokeniser: Path,
    length: int,
) -> None:
    """Writes all that `StableDiffusionPipeline.from_pretrained(folder)` of diffusers reads.

    Args:
        folder: to write to; its files of the same names are replaced.
        parts: all of `files.PARTS`.
        scheduler: `scheduler_config.json`, as `scheduler_configs.write` gives it.
        tokeniser: the file of the tokeniser, which is copied with those that belong to it.
        length: of texts, in tokens.
    """
    for part, (config, variables) in parts.items():
        write_part(folder, part, variables)
        write_json(folder / PARTS[part].folder / "config.json", config)
    files = [tokeniser.with_name(name) for name in TOKENISER_FILES]
    copied = {file.name: file.read_bytes() for file in files if file.is_file()}
    for name, data in copied.items():
        write_whole(folder / "tokenizer" / name, data)
    if "tokenizer_config.json" not in copied:
        write_json(folder / "tokenizer/tokenizer_config.json", tokeniser_config(length))
    write_json(folder / "scheduler/scheduler_config.json", scheduler)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "requires_safety_checker": False,
        **{part: [None, None] for part in ABSENT},
        **CLASSES,
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    write_json(folder / "model_index.json", index)


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Writes JSON with sorted keys, as diffusers does."""
    write_whole(path, (json.dumps(found, indent=2, sort_keys=True) + "\n").encode())
