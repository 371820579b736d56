"""Patches of photographs, 64x64 in colour: a UNet of 4.3 M parameters, as a prior for restoration.

The photographs are those of four Debian packages (`data/sets/photographs.py` has their authors and
licences): 7,354 cells of 27 photographs with a window of each per epoch, and 1,977 windows of 10
photographs that are held out.

    apt-get install --no-install-recommends lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \
        mate-backgrounds plasma-workspace-wallpapers

A step of 16 windows is 0.0675 TFLOP (`--mode plan`); on two CPU cores beside four other jobs it
took 1.2 to 3.6 s, on two that are idle 0.6 s. After all 10,000 steps the held-out loss was 0.076
and still falling by 1% in 500 steps, and samples have a faint grain of 2 x 2 pixels. What it
restores is in experiments/restoration/photographs.md.

The learning rate is constant, so that a training of any length can be continued
(`--config.train.steps`), and samples are of the average of the parameters.

On one GPU, train a UNet of 100 M parameters on the pixels for longer (the result has not been
measured):

    python launch.py --config configs/photographs.py --workdir runs/photographs_gpu \
        --config.model.unet.patch_size=1 --config.model.unet.channels=128 \
        --config.model.unet.channel_mults="(1,2,3,4)" --config.model.unet.num_blocks=2 \
        --config.model.unet.attention_levels="(2,3)" --config.model.unet.resblock_updown=True \
        --config.model.dtype=bfloat16 --config.train.steps=100000 --config.train.batch_size=128 \
        --config.ema.decay=0.9999 --config.optimizer.learning_rate=2e-4 \
        --config.optimizer.warmup_steps=1000 --config.model.unet.dropout=0.1 \
        --config.train.checkpoint_every=5000
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A UNet over 2 x 2 patches: its levels are 32, 16 and 8 patches wide."""
    c = default.get_config()
    c.data.name = "photographs"
    c.data.heldout_fraction = 0.2
    c.data.flip = True
    c.model.unet.patch_size = 2
    c.model.unet.channels = 48
    c.model.unet.channel_mults = (1, 2, 3)
    c.model.unet.num_blocks = 1
    c.model.unet.attention_levels = (2,)
    c.model.unet.num_heads = 4
    c.optimizer.learning_rate = 5e-4
    c.optimizer.warmup_steps = 200
    c.optimizer.decay = "constant"
    c.ema.decay = 0.9995
    c.train.steps = 10_000
    c.train.batch_size = 16
    c.train.log_every = 50
    c.train.heldout_every = 500
    c.train.sample_every = 1000
    c.train.checkpoint_every = 250
    c.sample.sampler = "dpmpp_multistep"
    c.sample.steps = 25
    c.sample.num_images = 64
    c.sample.batch_size = 32
    c.evaluate.metrics = "denoising,likelihood"
    c.evaluate.num_samples = 256
    c.evaluate.likelihood.num_images = 64
    return c
