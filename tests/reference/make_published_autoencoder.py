"""Names and shapes of the tensors of published autoencoders: `published_autoencoder.json.gz`.

Run it in an environment with `requirements.txt`; it writes next to itself. Only
`tests/models/test_published_autoencoder.py` uses the result. Names are diffusers' own; older ones,
and those of the single file, are kept only if diffusers turns them into its own.
"""

import gzip
import json
import pathlib

import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

CONFIGS = {
    "published": ([128, 256, 512, 512], 2),
    "small": ([32, 64, 64], 3),  # another number of levels and blocks
}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def modules_of_compvis(levels: int, blocks: int) -> dict[str, str]:
    """Modules of `ldm/modules/diffusionmodules/model.py` that have other names in diffusers."""
    found = {}
    for side in ("encoder", "decoder"):
        found[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        for block in (0, 1):
            found[f"{side}.mid_block.resnets.{block}"] = f"{side}.mid.block_{block + 1}"
        for ours, theirs in ATTENTION.items():
            found[f"{side}.mid_block.attentions.0.{ours}"] = f"{side}.mid.attn_1.{theirs}"
    for level in range(levels):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{levels - 1 - level}"
        for block in range(blocks):
            found[f"{down}.resnets.{block}"] = f"encoder.down.{level}.block.{block}"
        for block in range(blocks + 1):
            found[f"{up}.resnets.{block}"] = f"decoder.up.{level}.block.{block}"
        found[f"{down}.downsamplers.0"] = f"encoder.down.{level}.downsample"
        found[f"{up}.upsamplers.0"] = f"decoder.up.{level}.upsample"
    return found


def of_compvis(name: str, modules: dict[str, str]) -> str:
    """The name in the single file."""
    for ours, theirs in modules.items():
        if name.startswith(f"{ours}."):
            name = theirs + name.removeprefix(ours)
    return name.replace("conv_shortcut", "nin_shortcut")


def of_old(name: str) -> str:
    """The name that diffusers wrote until 2023."""
    for new, old in OLD.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def tensors(widths: list[int], blocks: int) -> list[dict]:
    """Names and shapes in all formats, in diffusers' order."""
    levels = len(widths)
    with torch.device("meta"):
        net = AutoencoderKL(
            block_out_channels=widths,
            layers_per_block=blocks,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
        )
    state, modules, found = net.state_dict(), modules_of_compvis(levels, blocks), []
    for name, value in state.items():
        shape = list(value.shape)
        convolution = "attentions" in name and len(shape) == 2
        single = {"name": of_compvis(name, modules), "shape": shape + [1, 1] * convolution}
        new, old = {"name": name, "shape": shape}, {"name": of_old(name), "shape": shape}
        found.append({"new": new, "old": old, "single": single})
    old = {tensor["old"]["name"]: tensor["new"]["name"] for tensor in found}
    net._fix_state_dict_keys_on_load(old)
    assert old == {name: name for name in state}, "diffusers reads other old names"
    numbers = {
        f"first_stage_model.{tensor['single']['name']}": torch.full(
            tensor["single"]["shape"], float(number)
        )
        for number, tensor in enumerate(found)
    }
    converted = convert_ldm_vae_checkpoint(numbers, net.config)
    assert [*sorted(converted)] == sorted(state), "diffusers reads other names"
    for number, (name, value) in enumerate(state.items()):
        assert converted[name].shape == value.shape, name
        assert (converted[name] == number).all(), name
    return found


def main() -> None:
    """Writes them."""
    found = {name: tensors(*config) for name, config in CONFIGS.items()}
    print({name: len(names) for name, names in found.items()})
    path = pathlib.Path(__file__).with_name("published_autoencoder.json.gz")
    path.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))


if __name__ == "__main__":
    main()
