"""Names and shapes of Stable Diffusion's published tensors: makes `published.json.gz`.

Run it in an environment with `requirements.txt` and transformers 5.23.0; it writes next to itself.
Only `tests/models/test_published.py` uses the result. Names of a folder are those of diffusers'
and transformers' own modules, without memory for weights. Names of a single file are counted here
as CompVis' `openaimodel.py` counts its blocks, and kept only if diffusers' own conversion turns
each of them into the right name of the folder.
"""

import gzip
import json
import pathlib

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel

UNETS = {
    "unet": {
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "attention": (0, 1, 2),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "small_unet": {  # attention in other places, other numbers of levels and blocks
        "block_out_channels": (32, 64, 96),
        "layers_per_block": 1,
        "attention": (0, 2),
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
    },
}
RES = {
    **{"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"},
    **{"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"},
}
OUTER = {
    **{"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"},
    **{"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"},
}


def modules_of_compvis(levels: int, blocks: int, attention: tuple[int, ...]) -> dict[str, str]:
    """Modules of `openaimodel.UNetModel`, in the order in which it makes them: folder to file."""
    found, inputs, outputs = dict(OUTER), 1, 0
    for level in range(levels):
        for block in range(blocks):
            found[f"down_blocks.{level}.resnets.{block}"] = f"input_blocks.{inputs}.0"
            if level in attention:
                found[f"down_blocks.{level}.attentions.{block}"] = f"input_blocks.{inputs}.1"
            inputs += 1
        if level < levels - 1:
            found[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{inputs}.0.op"
            inputs += 1
    found["mid_block.resnets.0"] = "middle_block.0"
    found["mid_block.attentions.0"] = "middle_block.1"
    found["mid_block.resnets.1"] = "middle_block.2"
    for up, level in enumerate(reversed(range(levels))):
        for block in range(blocks + 1):
            inside = 1
            found[f"up_blocks.{up}.resnets.{block}"] = f"output_blocks.{outputs}.0"
            if level in attention:
                found[f"up_blocks.{up}.attentions.{block}"] = f"output_blocks.{outputs}.1"
                inside = 2
            if level and block == blocks:
                found[f"up_blocks.{up}.upsamplers.0.conv"] = (
                    f"output_blocks.{outputs}.{inside}.conv"
                )
            outputs += 1
    return found


def of_compvis(name: str, modules: dict[str, str]) -> str:
    """The name in the single file of a tensor of the folder."""
    module = max((m for m in modules if name.startswith(f"{m}.")), key=len)
    inside, leaf = name[len(module) + 1 :].rpartition(".")[::2]
    path = [modules[module], *([RES.get(inside, inside)] if inside else []), leaf]
    return "model.diffusion_model." + ".".join(path)


def unet(attention: tuple[int, ...], **config) -> list[tuple[str, str, list[int]]]:
    """Names in the folder, names in the single file and shapes."""
    levels = len(config["block_out_channels"])
    with torch.device("meta"):
        net = UNet2DConditionModel(
            down_block_types=[
                "CrossAttnDownBlock2D" if level in attention else "DownBlock2D"
                for level in range(levels)
            ],
            up_block_types=[
                "CrossAttnUpBlock2D" if level in attention else "UpBlock2D"
                for level in reversed(range(levels))
            ],
            **config,
        )
    state = net.state_dict()
    modules = modules_of_compvis(levels, config["layers_per_block"], attention)
    theirs = {name: of_compvis(name, modules) for name in state}
    converted = convert_ldm_unet_checkpoint(
        {single: name for name, single in theirs.items()}, dict(net.config)
    )
    assert converted == {name: name for name in state}, "diffusers reads other names"
    return [(name, theirs[name], list(value.shape)) for name, value in state.items()]


def text_encoder() -> list[tuple[str, str, list[int]]]:
    """The same of CLIP's text encoder, whose defaults are not those of Stable Diffusion."""
    config = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
    )
    with torch.device("meta"):
        net = CLIPTextModel(config)
    # In memory transformers 5 has dropped `text_model.`, which its `save_pretrained` writes.
    shapes = {f"text_model.{n.removeprefix('text_model.')}": v for n, v in net.state_dict().items()}
    shapes.pop("text_model.embeddings.position_ids", None)
    prefix = "cond_stage_model.transformer."
    converted = convert_ldm_clip_checkpoint({f"{prefix}{name}": name for name in shapes})
    assert converted == {name: name for name in shapes}, "diffusers reads other names"
    return [(name, f"{prefix}{name}", list(value.shape)) for name, value in shapes.items()]


def main() -> None:
    """Writes [name in the folder, name in the single file, shape] of each tensor of each part."""
    found = {name: unet(**config) for name, config in UNETS.items()}
    found["text_encoder"] = text_encoder()
    for name, tensors in found.items():
        print(name, len(tensors))
    path = pathlib.Path(__file__).with_name("published.json.gz")
    path.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))


if __name__ == "__main__":
    main()
