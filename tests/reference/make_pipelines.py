"""Whole pipelines of diffusers in float64, of text to picture: makes `pipelines.npz`.

Run it in an environment with `requirements.txt`, with transformers as for `make_text.py`; it writes
next to itself. Only `test_stable_diffusion_pipelines.py` uses the result. Weights, inputs and noise
are those of `small_stable_diffusion.py`; two texts are drawn at once, guided by 7.5.
"""

import contextlib
import pathlib
import sys
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import small_stable_diffusion as small
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from doubled import doubled
from make_schedulers import DDIM, DPM, LEADING, PNDM
from make_stable_diffusion import first, last, loaded
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel

KINDS = {
    "text": diffusers.StableDiffusionPipeline,
    "image": diffusers.StableDiffusionImg2ImgPipeline,
    "inpaint": diffusers.StableDiffusionInpaintPipeline,
    "told": diffusers.StableDiffusionInpaintPipeline,  # its network is, of what to paint
    "lora": diffusers.StableDiffusionPipeline,
    "wide": diffusers.StableDiffusionPipeline,  # not square, and few steps
}
UNETS = {"told": small.INPAINTING_UNET, "wide": small.WIDE_UNET}
LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
RUNS: dict[str, tuple[str, dict[str, Any], float]] = {
    "told_pndm": ("told", PNDM, 1.0),
    "told_ddim": ("told", DDIM, 0.6),
    "lora_pndm": ("lora", PNDM, 1.0),
    "wide_ddim": ("wide", DDIM, 1.0),
    "text_pndm": ("text", PNDM, 1.0),
    "text_ddim": ("text", DDIM, 1.0),
    "text_dpm": ("text", {**DPM, **LEADING}, 1.0),
    "image_ddim": ("image", DDIM, 0.58),
    "inpaint_pndm": ("inpaint", PNDM, 1.0),
    "inpaint_ddim": ("inpaint", DDIM, 0.6),
}
"""Kind of pipeline, scheduler and strength, by name."""


def noise(seed: int) -> Any:
    """A function in place of `randn_tensor`, whose shapes have channels first."""

    def draw(shape: tuple[int, ...], *_: Any, **__: Any) -> torch.Tensor:
        b, c, h, w = shape
        return first(small.noise((b, h, w, c), seed))

    return draw


def unet(kind: str) -> UNet2DConditionModel:
    """The U-Net of a pipeline."""
    net = loaded(UNet2DConditionModel(**UNETS.get(kind, small.LEAST_UNET)))
    if kind == "lora":
        net.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=LAYERS))
        net.double()
        factors = {
            name: torch.from_numpy(small.factor(f"unet.{name}", tuple(value.shape))).double()
            for name, value in get_peft_model_state_dict(net).items()
        }
        set_peft_model_state_dict(net, factors)
    return net


def forwards() -> dict[str, torch.Tensor]:
    """Outputs of networks for latents of other sizes, some of their pixels."""
    text, found = torch.from_numpy(small.inputs()["text"][:1]), {}
    for (height, width), config in small.SIZES.items():
        net = loaded(UNet2DConditionModel(**config))
        with mock.patch.object(torch, "float32", torch.float64):
            x_t = first(small.noise((1, height, width, 4), 3))
            noise = net(x_t, torch.tensor([500]), text).sample
        found[f"{height}x{width}"] = noise[..., :: small.EVERY, :: small.EVERY]
    return found


def run(kind: str, config: dict[str, Any], strength: float) -> torch.Tensor:
    """The latents that a pipeline ends with."""
    given = small.inputs()
    scheduler_class = getattr(diffusers, config["_class_name"])
    text = loaded(CLIPTextModel(CLIPTextConfig(**small.TEXT)), "text_model.")
    nothing = np.full_like(given["tokens"], 99)
    nothing[:, 0] = 98
    embeds, negative = (
        text(torch.from_numpy(tokens)).last_hidden_state for tokens in (given["tokens"], nothing)
    )
    with doubled(scheduler_class, noise(2)), contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "float32", torch.float64))
        module = sys.modules[KINDS[kind].__module__]
        stack.enter_context(mock.patch.object(module, "randn_tensor", noise(0)))
        vae = sys.modules[diffusers.models.autoencoders.vae.DiagonalGaussianDistribution.__module__]
        stack.enter_context(mock.patch.object(vae, "randn_tensor", noise(1)))
        pipe = KINDS[kind](
            vae=loaded(AutoencoderKL(**small.LEAST_AUTOENCODER)),
            text_encoder=text,
            tokenizer=None,
            unet=unet(kind),
            scheduler=scheduler_class.from_config(config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        more: dict[str, Any] = {}
        if kind in ("image", "inpaint", "told"):
            more = {"image": first(given["picture"][:1]) / 2 + 0.5, "strength": strength}
        if kind in ("inpaint", "told"):
            more["mask_image"] = torch.from_numpy(small.hidden())[None, None]
        if kind != "image":
            height, width = small.WIDE if kind == "wide" else (16, 24)
            more |= {"height": height, "width": width}
        found = pipe(
            prompt_embeds=embeds,
            negative_prompt_embeds=negative,
            num_inference_steps=small.FEW if kind == "wide" else 48,
            guidance_scale=7.5,
            output_type="latent",
            **more,
        )
        every = small.EVERY if kind == "wide" else 1
        return found.images[..., ::every, ::every]


def main() -> None:
    """Writes the latents of all pipelines, and the pictures that the first become."""
    with torch.no_grad():
        arrays = {name: run(*settings) for name, settings in RUNS.items()} | forwards()
        vae = loaded(AutoencoderKL(**small.LEAST_AUTOENCODER))
        arrays["picture"] = vae.decode(arrays["text_pndm"] / 0.18215).sample
    for name, array in arrays.items():
        assert array.dtype == torch.float64, name
        print(name, tuple(array.shape), array.abs().max(), array.std())
    path = pathlib.Path(__file__).with_name("pipelines.npz")
    np.savez(path, **{name: last(array) for name, array in arrays.items()})


if __name__ == "__main__":
    main()
