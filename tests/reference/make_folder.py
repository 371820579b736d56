"""JSON of the parts of a pipeline as diffusers and transformers write it: `folder.json`.

Run it in an environment with `requirements.txt`; it writes next to itself. Only
`tests/models/test_published_folder.py` uses the result. Of each class there are the defaults, and
the networks of `small_stable_diffusion.py`.
"""

import json
import pathlib

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from small_stable_diffusion import AUTOENCODER, TEXT, UNET
from transformers import CLIPTextConfig, CLIPTextModel

diffusers.logging.set_verbosity_error()


def written(network: object) -> dict:
    """The `config.json` of a network, without its paths and the versions of the libraries."""
    found = json.loads(network.to_json_string())
    return {key: value for key, value in found.items() if not key.endswith("_version")}


def of_text(**sizes: object) -> dict:
    """Without the class, which `save_pretrained` adds."""
    network = CLIPTextModel(CLIPTextConfig(**sizes))
    config = json.loads(network.config.to_json_string(use_diff=False))
    return {key: value for key, value in config.items() if not key.endswith("_version")}


with torch.device("meta"):
    found = {
        "unet": {
            "default": written(UNet2DConditionModel()),
            "small": written(UNet2DConditionModel(**UNET)),
        },
        "vae": {
            "default": written(AutoencoderKL()),
            "small": written(AutoencoderKL(**AUTOENCODER, sample_size=64)),
        },
        "text_encoder": {"default": of_text(), "small": of_text(**TEXT)},
    }
path = pathlib.Path(__file__).with_name("folder.json")
path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
