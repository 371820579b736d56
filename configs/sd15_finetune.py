"""Fine-tuning of Stable Diffusion v1-5 on a folder of pictures with texts (`metadata.jsonl`).

    python launch.py --config configs/sd15_finetune.py --mode train --workdir runs/finetuned \
        --config.weights.source=stable-diffusion-v1-5 --config.data.dir=FOLDER \
        --config.data.image_size=512

trains the whole U-Net; with `--config.adapter.name=lora` only LoRA of it, and with
`textual_inversion` only the vectors of a new word (docs/stable_diffusion.md). `--mode export`
writes what diffusers loads.
"""

from ml_collections import ConfigDict

from configs import sd15


def get_config() -> ConfigDict:
    """The whole U-Net in batches of 4, with rates as in the examples of diffusers."""
    c = sd15.get_config()
    c.data.name = "folder"
    c.data.shape = ()
    c.optimizer.learning_rate = 1e-5  # LoRA: 1e-4; textual inversion: 2e-3
    c.optimizer.decay = "constant"
    c.optimizer.adamw.b2 = 0.999
    c.optimizer.adamw.weight_decay = 0.01
    c.ema.decay = 0.9999
    c.train.steps = 1000
    c.train.batch_size = 4
    c.train.log_every = 10
    c.train.heldout_every = 200
    c.train.sample_every = 200
    c.train.checkpoint_every = 200
    c.evaluate.metrics = "denoising"
    return c
