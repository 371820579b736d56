"""LoRA of diffusers and PEFT on a small U-Net and text encoder: makes `lora.npz`.

Run it in an environment with `requirements.txt`, transformers 5.23.0 and peft 0.21.2; it writes
next to itself. Only `tests/models/test_lora.py` uses the result. Weights and factors are drawn by
their names, as in `make_unet.py`, so that only the names in the files, their headers and the
outputs of networks that loaded the files are stored.
"""

import json
import pathlib
import tempfile
import zlib

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "ff.net.2", "time_emb_proj"]
TOKENS = [[0, 5, 3, 10, 10, 10, 10], [0, 10, 10, 10, 10, 10, 10]]


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor `name`: 0.05 times a normal, 1 more for the scales of norms; float32."""
    values = 0.05 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return np.float32(values + (len(shape) == 1 and name.endswith("weight")))


def fill(net: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
    """The network with weights drawn by the names in their files."""
    state = net.state_dict().items()
    values = {n: torch.from_numpy(drawn(prefix + n, tuple(v.shape))) for n, v in state}
    net.load_state_dict(values)
    return net.eval()


def networks() -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """A U-Net of one level and a text encoder of one layer."""
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(128,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    config = CLIPTextConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=0,
        eos_token_id=10,
        pad_token_id=10,
    )
    return fill(unet), fill(CLIPTextModel(config), "text_model.")


def outputs(unet: UNet2DConditionModel, text: CLIPTextModel) -> np.ndarray:
    """The U-Net's output for fixed inputs and the text encoder's features: [2, 4, 4, 4]."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((2, 4, 4, 4)).astype(np.float32).transpose(0, 3, 1, 2))
    with torch.no_grad():
        features = text(torch.tensor(TOKENS)).last_hidden_state
        y = unet(x, torch.tensor([100.0, 900.0]), features).sample
    return y.numpy().transpose(0, 2, 3, 1)


def files(folder: pathlib.Path) -> None:
    """Writes `peft.safetensors`, `scaled.safetensors` with a header and `kohya.safetensors`."""
    unet, text = networks()
    ranks = {"rank_pattern": {"conv1": 3}, "alpha_pattern": {"to_q": 5}}
    unet.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=LAYERS, **ranks))
    text.add_adapter(LoraConfig(r=2, lora_alpha=1, target_modules=["q_proj", "out_proj", "fc1"]))
    layers = {}
    for part, net in (("unet", unet), ("text_encoder", text)):
        layers[part] = {
            name: torch.from_numpy(drawn(f"{part}.{name}", tuple(value.shape)))
            for name, value in get_peft_model_state_dict(net).items()
        }
    arguments = {f"{part}_lora_layers": layers[part] for part in layers}
    configs = {
        f"{part}_lora_adapter_metadata": net.peft_config["default"].to_dict()
        for part, net in (("unet", unet), ("text_encoder", text))
    }
    for name, more in (("peft", {}), ("scaled", configs)):
        StableDiffusionPipeline.save_lora_weights(
            folder, weight_name=f"{name}.safetensors", **arguments, **more
        )
    whole = {f"{part}.{n}": value for part, found in layers.items() for n, value in found.items()}
    kohya = convert_state_dict_to_kohya(whole)
    for name, value in kohya.items():
        shape = tuple(value.shape)
        # One alpha for all: where they differ, diffusers 0.42.1 passes most of them over, with a
        # warning of PEFT's.
        kohya[name] = torch.from_numpy(drawn(name, shape)) if shape else torch.tensor(1.5)
    save_file(kohya, folder / "kohya.safetensors", metadata={"format": "pt"})


def loaded(path: pathlib.Path) -> np.ndarray:
    """Outputs of the networks with a file that diffusers loads."""
    unet, text = networks()
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
        str(path), return_lora_metadata=True
    )
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet, metadata=metadata)
    StableDiffusionPipeline.load_lora_into_text_encoder(state, alphas, text, metadata=metadata)
    return outputs(unet, text)


def main() -> None:
    """Writes names, shapes, header and output of each file, and the output without any."""
    found = {"none": outputs(*networks())}
    with tempfile.TemporaryDirectory() as name:
        files(pathlib.Path(name))
        for path in sorted(pathlib.Path(name).iterdir()):
            with safe_open(path, "numpy") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
                found[f"{path.stem}_file"] = json.dumps([shapes, file.metadata()])
            found[path.stem] = loaded(path)
            print(path.stem, len(shapes), np.abs(found[path.stem] - found["none"]).max())
    np.savez_compressed(pathlib.Path(__file__).with_name("lora.npz"), **found)


if __name__ == "__main__":
    main()
