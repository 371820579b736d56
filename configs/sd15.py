"""Stable Diffusion v1-5 with its published weights: pictures of texts, by 48 steps of PLMS.

The weights are those of the folder that diffusers saves, or of a single file; nothing is trained.

    python launch.py --config configs/sd15.py --mode sample --workdir runs/sd15 \
        --config.weights.source=stable-diffusion-v1-5 --prompt "a photograph of a lighthouse"

A single file has no tokeniser: `text.tokenizer` names the folder of `vocab.json` and `merges.txt`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """860 M parameters on latents of 64 x 64 x 4, with guidance of 7.5."""
    c = default.get_config()
    c.data.name = "none"
    c.data.shape = (512, 512, 3)
    c.codec.name = "autoencoder"
    c.schedule.name = "scaled_linear"
    c.time_sampling.name = "discrete"
    c.objective.prediction = "eps"
    c.model.name = "unet"
    c.model.time_input = "table_index"
    c.model.unet.channels = 320
    c.model.unet.channel_mults = (1, 2, 4, 4)
    c.model.unet.num_blocks = 2
    c.model.unet.attention_levels = (0, 1, 2)
    c.model.unet.num_heads = 8
    c.model.unet.scale_shift = False
    c.model.unet.symmetric_padding = True
    c.text.name = "clip"
    c.text.length = 77
    c.text.pooled = False
    c.text.unconditional = "empty"
    c.sample.sampler = "pndm"
    c.sample.steps = 48
    c.sample.grid = "leading"
    c.sample.leading.offset = 1
    c.sample.leading.end = 0.001
    c.sample.start = "standard"
    c.sample.guidance_scale = 7.5
    c.sample.strip = 2
    c.sample.batch_size = 4
    c.sample.num_images = 4
    return c
