"""DiT-XL/2 on ImageNet 256x256 in the latents of Stable Diffusion's autoencoder: 675 M parameters.

The recipe of Peebles & Xie 2023: noise is predicted in latents of 32 x 32 x 4, with a learned
variance; labels are dropped in a tenth of the training. Not trained with this code. The autoencoder
is published (DiT's is `stabilityai/sd-vae-ft-ema`), and so is the trained network, whose file can
be sampled from, or trained further:

    python launch.py --config configs/imagenet256_dit.py --workdir runs/dit \
        --config.codec.autoencoder.weights=sd-vae-ft-ema
    python launch.py --config configs/imagenet256_dit.py --workdir runs/published --mode sample \
        --config.codec.autoencoder.weights=sd-vae-ft-ema \
        --config.weights.source=DiT-XL-2-256x256.pt

Latents of all images and of their mirror images take 84 GB of the user's cache folder. Training
needs `imagenet2012`, which TFDS prepares from the archives in `data.manual_dir`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """400,000 steps of 256 latents, 80 epochs, as DiT's ablations; its best model took 7 M."""
    c = default.get_config()
    c.data.name = "imagenet2012"
    c.data.image_size = 256
    c.data.heldout_split = "validation"
    c.data.flip = True
    c.data.in_memory = "never"
    c.data.num_workers = 8
    c.codec.name = "autoencoder"
    c.schedule.name = "ddpm"
    c.time_sampling.name = "discrete"
    c.objective.prediction = "eps"
    c.objective.learned_variance = True
    c.model.name = "dit"
    c.model.time_input = "table_index"
    c.model.dtype = "bfloat16"
    c.model.dit.patch_size = 2
    c.model.dit.hidden_size = 1152
    c.model.dit.depth = 28
    c.model.dit.num_heads = 16
    c.model.dit.remat = "full"
    c.optimizer.adamw.b2 = 0.999
    c.optimizer.learning_rate = 1e-4
    c.optimizer.warmup_steps = 0
    c.optimizer.decay = "constant"
    c.optimizer.clip_norm = 0.0
    c.ema.decay = 0.9999
    c.ema.warmup = False
    c.train.steps = 400_000
    c.train.batch_size = 256
    c.train.log_every = 100
    c.train.heldout_every = 10_000
    c.train.sample_every = 10_000
    c.train.checkpoint_every = 5000
    c.sample.sampler = "ancestral"
    c.sample.ancestral.variance = "learned"
    c.sample.steps = 250
    c.sample.grid = "linspace"
    c.sample.guidance_scale = 1.5
    c.sample.batch_size = 64
    c.evaluate.num_samples = 50_000
    return c
