"""The PyTorch side: writes random weights in the published layout, and draws with eager diffusers.

python theirs.py FOLDER --make     writes `FOLDER`, 4.3 GB: the sizes of Stable Diffusion v1-5
python theirs.py FOLDER            a worker of bench.py
"""

import argparse
import itertools
import json
import pathlib
import resource
import sys
import time

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

TOKENS = 49408


def write_tokeniser(folder: pathlib.Path) -> None:
    """A byte-pair vocabulary of the published size, with made-up merges of two bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(bytes_to_unicode().values())
    units = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = list(itertools.islice(itertools.product(letters, letters), TOKENS - 2 - len(units)))
    tokens = [*units, *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")


def make(folder: pathlib.Path) -> None:
    """Writes a pipeline of the published sizes with random weights."""
    torch.manual_seed(0)
    write_tokeniser(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77)
    levels = 4
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    text = CLIPTextConfig(
        vocab_size=TOKENS,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=TOKENS - 2,
        eos_token_id=TOKENS - 1,
        pad_token_id=TOKENS - 1,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            **kinds,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(cross_attention_dim=768, sample_size=64),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def main() -> None:
    """Writes the folder, or serves bench.py: draws a picture into the file that a line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--latents", type=pathlib.Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--prompt")
    args = parser.parse_args()
    if args.make:
        make(args.folder)
        return
    pipe = StableDiffusionPipeline.from_pretrained(args.folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.from_numpy(np.load(args.latents)).permute(2, 0, 1)[None]
    height, width = (8 * side for side in noise.shape[2:])
    for line in sys.stdin:
        start = time.perf_counter()
        with torch.inference_mode():
            x = pipe(
                args.prompt,
                num_inference_steps=args.steps,
                height=height,
                width=width,
                latents=noise.clone(),
                output_type="np",
            ).images
        seconds = time.perf_counter() - start
        np.save(line.strip(), 2 * x - 1)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "memory": memory}), flush=True)


if __name__ == "__main__":
    main()
