"""Their side of parts.py: one forward of each part of a folder by diffusers, in float32.

python theirs_parts.py FOLDER INPUTS OUTPUTS     both are .npz files, of arrays by case
"""

import argparse
import pathlib
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel


def channels_first(x: np.ndarray) -> torch.Tensor:
    """[B, H, W, C] -> [B, C, H, W]."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def outputs(folder: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """What each part gives for its inputs, one part in memory at a time."""
    found: dict[str, torch.Tensor] = {}
    net = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").eval()
    found["text"] = net(torch.from_numpy(inputs["tokens"])).last_hidden_state
    net = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    for case in inputs:
        kind, _, size = case.partition(" ")
        if kind == "picture":
            law = net.encode(channels_first(inputs[case])).latent_dist
            found[f"mean {size}"] = law.mean.permute(0, 2, 3, 1)
            found[f"log-variance {size}"] = law.logvar.permute(0, 2, 3, 1)
        elif kind == "latents":
            found[f"decoded {size}"] = net.decode(channels_first(inputs[case])).sample
            found[f"decoded {size}"] = found[f"decoded {size}"].permute(0, 2, 3, 1)
    net = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").eval()
    index, text = torch.from_numpy(inputs["index"]), torch.from_numpy(inputs["text"])
    for case in inputs:
        kind, _, size = case.partition(" ")
        if kind == "latents":
            noise = net(channels_first(inputs[case]), index, text).sample
            found[f"noise {size}"] = noise.permute(0, 2, 3, 1)
    return {case: value.numpy() for case, value in found.items()}


def main() -> None:
    """Writes the outputs for the inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("inputs", type=pathlib.Path)
    parser.add_argument("outputs", type=pathlib.Path)
    asked = parser.parse_args()
    with torch.inference_mode():
        np.savez(asked.outputs, **outputs(asked.folder, dict(np.load(asked.inputs))))


if __name__ == "__main__":
    main()
