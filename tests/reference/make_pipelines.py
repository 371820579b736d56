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
from transformers import CLIPTextConfig, CLIPTextModel

KINDS = {
    "text": diffusers.StableDiffusionPipeline,
    "image": diffusers.StableDiffusionImg2ImgPipeline,
    "inpaint": diffusers.StableDiffusionInpaintPipeline,
}
RUNS: dict[str, tuple[str, dict[str, Any], float]] = {
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
            unet=loaded(UNet2DConditionModel(**small.LEAST_UNET)),
            scheduler=scheduler_class.from_config(config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        more: dict[str, Any] = {}
        if kind != "text":
            more = {"image": first(given["picture"][:1]) / 2 + 0.5, "strength": strength}
        if kind == "inpaint":
            more["mask_image"] = torch.from_numpy(small.hidden())[None, None]
        if kind != "image":
            more |= {"height": 16, "width": 24}
        found = pipe(
            prompt_embeds=embeds,
            negative_prompt_embeds=negative,
            num_inference_steps=48,
            guidance_scale=7.5,
            output_type="latent",
            **more,
        )
        return found.images


def main() -> None:
    """Writes the latents of all pipelines, and the pictures that the first become."""
    with torch.no_grad():
        arrays = {name: run(*settings) for name, settings in RUNS.items()}
        vae = loaded(AutoencoderKL(**small.LEAST_AUTOENCODER))
        arrays["picture"] = vae.decode(arrays["text_pndm"] / 0.18215).sample
    for name, array in arrays.items():
        assert array.dtype == torch.float64, name
        print(name, tuple(array.shape), array.abs().max(), array.std())
    path = pathlib.Path(__file__).with_name("pipelines.npz")
    np.savez(path, **{name: last(array) for name, array in arrays.items()})


if __name__ == "__main__":
    main()
