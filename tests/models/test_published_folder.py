"""Whole folders as diffusers saves them: their JSON is that of diffusers for the same sizes."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.published import autoencoder_configs
from diffusion_jax.models.published.folder import (
    text_config,
    unet_config,
    write_folder,
)
from diffusion_jax.models.unet import UNet

FOUND = json.loads((Path(__file__).parents[1] / "reference/folder.json").read_text())
SIZES: dict[str, Any] = {"channels": 32, "channel_mults": (1, 2, 2, 2), "norm_groups": 32}
OF_UNET = {"attention_levels": (0, 1, 2), "num_heads": 8, "context_dim": 48, "out_channels": 4}
NET = UNet(**SIZES, **OF_UNET, symmetric_padding=True)


@pytest.mark.parametrize(
    ("part", "ours"),
    [
        ("unet", unet_config(NET, 4, 16)),
        ("vae", autoencoder_configs.write(Autoencoder(**SIZES), None, None, 64, 0.18215)),
        ("text_encoder", text_config(TextTower(100, width=48, depth=2, heads=4, end=99), 98)),
    ],
)
def test_configs_are_those_that_diffusers_writes(part: str, ours: dict[str, Any]) -> None:
    saved = {"architectures": ["CLIPTextModel"], "dtype": "float32"}  # only with the weights
    theirs = FOUND[part]["small"] | (saved if part == "text_encoder" else {})
    assert FOUND[part]["default"] | ours == theirs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale_shift": True}, "scale_shift=True must be False, as in Stable Diffusion v1"),
        ({"symmetric_padding": False}, "symmetric_padding=False must be True"),
        ({"out_channels": 8}, "out_channels=8 must be 4"),
        ({"norm_groups": 0}, "norm_groups=0 must be a number of groups, such as 32"),
    ],
)
def test_networks_that_no_folder_can_hold_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unet_config(NET.clone(**changes), 4, 16)


def test_the_full_network_has_the_published_sizes() -> None:
    """As in `stable-diffusion-v1-5`, whose norms have 32 groups by our rule, too."""
    sizes = {"channels": 320, "channel_mults": (1, 2, 4, 4), "num_blocks": 2}
    found = unet_config(UNet(**sizes, **OF_UNET, symmetric_padding=True), 4, 64)
    assert (found["norm_num_groups"], found["sample_size"]) == (32, 64)
    assert found["block_out_channels"] == [320, 640, 1280, 1280]


def test_a_tokeniser_is_copied_with_all_that_is_there_and_told_its_length(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "other.txt"):
        (tmp_path / name).write_text(name)
    write_folder(tmp_path / "out", {}, {"_class_name": "X"}, tmp_path / "vocab.json", 77)
    found = {path.name for path in (tmp_path / "out/tokenizer").iterdir()}
    assert found == {"vocab.json", "merges.txt", "tokenizer_config.json"}
    config = json.loads((tmp_path / "out/tokenizer/tokenizer_config.json").read_text())
    assert config["model_max_length"] == 77
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "X"]
    assert index["safety_checker"] == [None, None]
